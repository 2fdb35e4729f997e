//! Faults in deciding whether an interface is guarded.

use super::Fault;

const ATTACHMENT: &str = "knock-user/src/datapath/install/attachment.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "an interface with pins counts as guarded",
        file: ATTACHMENT,
        find: "let is_guarded = found.iter().any(|known| known.name == *name);",
        replace: "let is_guarded = directories.contains(name);",
    },
    Fault {
        what: "an interface counts as guarded whatever program it carries",
        file: ATTACHMENT,
        find: "let attached = carried(interface, link, lists)?;",
        replace: "let attached = carried(interface, link, lists).unwrap_or(Attached::Native);",
    },
    Fault {
        what: "an interface counts as guarded when its link carries another program",
        file: ATTACHMENT,
        find: "if !programs.contains(&link.program) {\n            return None;",
        replace: "if programs.is_empty() {\n            return None;",
    },
    Fault {
        what: "another interface under the name of one that was renamed counts as guarded",
        file: ATTACHMENT,
        find: "if is_guarded || (interface.is_none() && follows.is_some()) {",
        replace: "if is_guarded || follows.is_some() {",
    },
    Fault {
        what: "a renamed interface counts as lost",
        file: ATTACHMENT,
        find: "if is_guarded || (interface.is_none() && follows.is_some()) {",
        replace: "if is_guarded {",
    },
    Fault {
        what: "a link in another namespace counts for the interface that has its index here",
        file: ATTACHMENT,
        find: "(interface.name == pinned || !claimed).then_some((interface, attached))",
        replace: "Some((interface, attached))",
    },
    Fault {
        what: "a program in front at TCX does not matter",
        file: ATTACHMENT,
        find: "        && !programs.contains(&first.program)\n",
        replace: "        && programs.is_empty()\n        && first.program != 0\n",
    },
    Fault {
        what: "an interface at TCX counts as guarded by any link in its list",
        file: ATTACHMENT,
        find: "list.any(|of| of.link == link.id && of.program == link.program)",
        replace: "list.any(|of| of.program == link.program)",
    },
];
