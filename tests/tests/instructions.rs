//! How many instructions the program takes for a packet, counted and not timed: figures that no other load on the
//! machine moves, kept in `docs/instructions.md`, and none may grow far beyond.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::Path};

use knockgate_tests::{
    fixtures::{self, Family},
    subject::Counted,
};

const PAGE: &str = "../docs/instructions.md";

/// The variable by which `cargo xtask instructions --update` has the page written anew.
const UPDATE: &str = "KNOCKGATE_UPDATE_INSTRUCTIONS";

/// By what came of a packet: IPv4's and IPv6's most. `None`: no fixture of that family leads there.
type Figures = BTreeMap<String, [Option<u64>; 2]>;

/// Every fixture, too, holds for the program run instruction by instruction.
#[test]
fn no_verdict_takes_far_more_instructions_than_written_down() {
    let Some(figures) = measured() else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rows) = page.split_once("| what ").expect("a table ends the page");
    println!("\n{}", table(&figures));
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{}", table(&figures))).expect("the page can be written");
        return;
    }
    let stored = stored(rows);
    let names = |figures: &Figures| figures.keys().cloned().collect::<Vec<_>>();
    let how = "`cargo xtask instructions --update` writes docs/instructions.md anew";
    assert_eq!(names(&figures), names(&stored), "{how}");
    for (what, now) in &figures {
        for (now, then) in now.iter().zip(stored[what]) {
            let (now, then) = (now.unwrap_or(0), then.unwrap_or(0));
            assert!(
                now * 4 <= then * 5,
                "{what}: {now} instructions, more than a quarter above the {then} written down. Where that is \
                 worth its cost, {how}"
            );
        }
    }
}

/// `None` where no program can be loaded.
fn measured() -> Option<Figures> {
    // Loading takes longest, and rows share configurations.
    let mut loaded: BTreeMap<(&str, usize), Counted> = BTreeMap::new();
    for row in fixtures::all() {
        for &family in row.families {
            let key = (row.config, usize::from(family == Family::V6));
            let mut counted = match loaded.remove(&key) {
                Some(counted) => counted,
                None => Counted::load(&row.config(family))?,
            };
            row.run(family, &mut counted);
            loaded.insert(key, counted);
        }
    }
    let mut figures = Figures::new();
    for ((_, family), counted) in &loaded {
        for (what, &instructions) in counted.longest() {
            let most = &mut figures.entry(what.clone()).or_default()[*family];
            *most = (*most).max(Some(instructions));
        }
    }
    Some(figures)
}

/// In Markdown.
fn table(figures: &Figures) -> String {
    let mut table = String::from("| what comes of a packet | IPv4 | IPv6 |\n|---|---:|---:|\n");
    let cell = |figure: Option<u64>| figure.map_or("–".to_owned(), |figure| figure.to_string());
    for (what, [v4, v6]) in figures {
        // Writing to a string doesn't fail.
        let _ = writeln!(table, "| {what} | {} | {} |", cell(*v4), cell(*v6));
    }
    table
}

/// Reads what [`table`] has written.
fn stored(rows: &str) -> Figures {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, v4, v6] = cells[..] else {
            return None;
        };
        Some((what.to_owned(), [v4.parse().ok(), v6.parse().ok()]))
    };
    rows.lines().skip(2).filter_map(row).collect()
}
