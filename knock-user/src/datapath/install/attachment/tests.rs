//! Rows from what was read.

use super::*;

const PROGRAM: u32 = 40;

fn link(pinned: &str, interface: u32) -> (String, ProgramLink) {
    let link = ProgramLink {
        id: interface,
        program: PROGRAM,
        hook: Hook::Xdp,
        interface: NonZeroU32::new(interface),
    };
    (pinned.to_owned(), link)
}

fn interface(index: u32, name: &str, native: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        native_program: native,
        ..Link::default()
    }
}

/// A link at TCX, whose id is not the interface's index.
fn tcx_link(pinned: &str, interface: u32) -> (String, ProgramLink) {
    let (pinned, link) = link(pinned, interface);
    let link = ProgramLink {
        id: 900 + link.id,
        hook: Hook::Tcx,
        ..link
    };
    (pinned, link)
}

type Row = (String, Option<u32>, Option<String>, Result<(), Lack>);

/// Every row: its name, its index, its former name, and whether it is guarded or why not.
fn rows(configured: &[&str], held: &[(String, ProgramLink)], present: &[Link]) -> Vec<Row> {
    let configured: Vec<String> = configured.iter().map(ToString::to_string).collect();
    let lists = TcxLists::new();
    judge(&configured, &configured, &[PROGRAM], held, present, &lists)
        .into_iter()
        .map(|row| {
            let renamed = row.renamed_from().map(ToOwned::to_owned);
            (row.name, row.index, renamed, row.state.map(drop))
        })
        .collect()
}

fn row(name: &str, index: Option<u32>, renamed: Option<&str>, state: Result<(), Lack>) -> Row {
    (
        name.to_owned(),
        index,
        renamed.map(ToOwned::to_owned),
        state,
    )
}

#[test]
fn an_interface_that_carries_the_program_is_guarded() {
    assert_eq!(
        rows(
            &["wan0"],
            &[link("wan0", 2)],
            &[interface(2, "wan0", Some(PROGRAM))]
        ),
        [row("wan0", Some(2), None, Ok(()))]
    );
}

#[test]
fn pins_guard_nothing() {
    let present = [interface(2, "wan0", None)];
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 0)], &present),
        [row("wan0", Some(2), None, Err(Lack::Detached))]
    );
    assert_eq!(
        rows(&["wan0"], &[], &present),
        [row("wan0", Some(2), None, Err(Lack::Unlinked))]
    );
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 0)], &[]),
        [row("wan0", None, None, Err(Lack::Absent))]
    );
    let configured = ["wan0".to_owned()];
    let down = judge(&configured, &[], &[], &[], &present, &TcxLists::new());
    assert_eq!(down[0].state, Err(Lack::Down));
}

#[test]
fn a_link_that_carries_another_program_guards_nothing() {
    let mut link = link("wan0", 2);
    link.1.program = PROGRAM + 1;
    assert_eq!(
        rows(
            &["wan0"],
            &[link],
            &[interface(2, "wan0", Some(PROGRAM + 1))]
        ),
        [row("wan0", Some(2), None, Err(Lack::Replaced))]
    );
}

#[test]
fn a_renamed_interface_is_followed() {
    assert_eq!(
        rows(
            &["wan0"],
            &[link("wan0", 2)],
            &[interface(2, "ext0", Some(PROGRAM))]
        ),
        [row("ext0", Some(2), Some("wan0"), Ok(()))]
    );
}

#[test]
fn another_interface_under_the_name_is_not_guarded() {
    let present = [
        interface(2, "ext0", Some(PROGRAM)),
        interface(3, "wan0", None),
    ];
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 2)], &present),
        [
            row("ext0", Some(2), Some("wan0"), Ok(())),
            row("wan0", Some(3), None, Err(Lack::Renamed("ext0".into()))),
        ]
    );
    // Until the program is on both.
    let present = [
        interface(2, "ext0", Some(PROGRAM)),
        interface(3, "wan0", Some(PROGRAM)),
    ];
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 2), link("wan0", 3)], &present),
        [
            row("ext0", Some(2), Some("wan0"), Ok(())),
            row("wan0", Some(3), None, Ok(())),
        ]
    );
}

#[test]
fn two_that_have_swapped_names_are_guarded() {
    let present = [
        interface(2, "lan0", Some(PROGRAM)),
        interface(3, "wan0", Some(PROGRAM)),
    ];
    assert_eq!(
        rows(
            &["lan0", "wan0"],
            &[link("lan0", 3), link("wan0", 2)],
            &present
        ),
        [
            row("lan0", Some(2), Some("wan0"), Ok(())),
            row("wan0", Some(3), Some("lan0"), Ok(())),
        ]
    );
}

#[test]
fn an_interface_in_another_namespace_guards_nothing_here() {
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 2)], &[]),
        [row("wan0", None, None, Err(Lack::Moved))]
    );
    // Its index is another interface's here.
    let other = [interface(2, "lan0", Some(77))];
    assert_eq!(
        rows(&["wan0"], &[link("wan0", 2)], &other),
        [row("wan0", None, None, Err(Lack::Moved))]
    );
    // And that interface is guarded, too, whichever link is looked at first.
    assert_eq!(
        rows(
            &["aux0", "lan0"],
            &[link("aux0", 2), link("lan0", 2)],
            &[interface(2, "lan0", Some(PROGRAM))]
        ),
        [
            row("aux0", None, None, Err(Lack::Moved)),
            row("lan0", Some(2), None, Ok(())),
        ]
    );
    assert_eq!(
        rows(
            &["lan0", "wan0"],
            &[link("lan0", 2), link("wan0", 2)],
            &[interface(2, "lan0", Some(PROGRAM))]
        ),
        [
            row("lan0", Some(2), None, Ok(())),
            row("wan0", None, None, Err(Lack::Moved)),
        ]
    );
}

/// What an interface says of XDP does not matter there.
#[test]
fn at_tcx_the_interface_must_have_the_link_in_its_list() {
    let configured = ["wan0".to_owned()];
    let present = [interface(2, "wan0", Some(77))];
    let held = [tcx_link("wan0", 2)];
    let listed = |link| Listed {
        program: PROGRAM,
        link,
    };
    for (list, state) in [
        (vec![listed(902)], Ok(Attached::Tcx)),
        // Of another namespace, where an interface has the same index.
        (vec![listed(903)], Err(Lack::Moved)),
        (vec![], Err(Lack::Moved)),
    ] {
        let lists = TcxLists::from([(2, list)]);
        let rows = judge(
            &configured,
            &configured,
            &[PROGRAM],
            &held,
            &present,
            &lists,
        );
        assert_eq!(rows[0].state, state, "{lists:?}");
    }
}

#[test]
fn a_program_in_front_at_tcx_leaves_an_interface_unguarded() {
    let row = |attached| Attachment {
        configured: "wan0".to_owned(),
        name: "wan0".to_owned(),
        index: Some(2),
        state: Ok(attached),
        other: None,
    };
    let listed = |program| Listed { program, link: 1 };
    for (list, attached, state) in [
        ([PROGRAM, 77], Attached::Tcx, Ok(Attached::Tcx)),
        ([77, PROGRAM], Attached::Tcx, Err(Lack::Behind(77))),
        // Those at XDP come first in any case.
        ([77, PROGRAM], Attached::Native, Ok(Attached::Native)),
    ] {
        let lists = TcxLists::from([(2, list.map(listed).to_vec())]);
        let mut row = row(attached);
        require_first(&mut row, &[PROGRAM], &lists);
        assert_eq!(row.state, state, "{list:?}");
        assert!(row.is_attached());
    }
}
