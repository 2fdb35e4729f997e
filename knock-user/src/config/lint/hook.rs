//! Warnings about the programs that hooks run.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use crate::config::{
    draft::Draft,
    source::{Findings, Located},
};

/// Warns of programs that cannot be run, and of those that others may change. They run as the service does: as root.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft) {
    let hooks = draft.gates.iter().flat_map(|gate| &gate.hooks);
    for Located { value: path, span } in hooks.filter_map(|hook| hook.run.items.first()) {
        let file = match fs::metadata(path) {
            Ok(file) => file,
            Err(error) => {
                let message = format!("the hook cannot be run: {path}: {error}");
                findings.warning("missing-program", *span, message);
                continue;
            }
        };
        let mode = file.permissions().mode();
        if !file.is_file() || mode & 0o111 == 0 {
            let message = format!(
                "the hook cannot be run: {path} is not an executable file; `chmod +x` it, or run it by its interpreter"
            );
            findings.warning("missing-program", *span, message);
        } else if mode & 0o022 != 0 || file.uid() != 0 {
            let message = format!(
                "others than root can change {path} (owner {}, mode {:04o}), which the service runs as root: \
                 `chown root` and `chmod go-w` it",
                file.uid(),
                mode & 0o7777
            );
            findings.warning("program-open-to-others", *span, message);
        }
    }
}
