//! The commands for keys of authenticated knocks, with one key and with ten thousand, while the gate is up.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::output;

use super::{Cost, Desk, Measured, Reloaded, finish, second, timed};
use crate::{
    figures::Against,
    host::Wire,
    instance::{Instance, Setup, Slots},
    programs::Programs,
};

/// The keys of the large folder, beside those that the commands make.
const MANY: u16 = 10_000;
/// Room for those.
const MORE: u32 = 100;
/// Live grants that the first key has earned: each is looked at whenever keys change.
const GRANTS: u32 = 10_000;
/// The key that the program makes first, of which the others are copies.
const FIRST: &str = "first";

/// Instances with one key and with [`MANY`].
pub(super) struct Keys {
    few: Keyed,
    many: Keyed,
}

/// An instance whose keys are changed.
struct Keyed {
    reloaded: Reloaded,
    setup: Setup,
    count: u16,
    /// How many keys the commands have made.
    made: Cell<u32>,
}

impl Keys {
    pub(super) fn new(desk: &Desk<'_>, programs: &mut Programs, wires: [&Wire; 2]) -> Result<Self> {
        let [few, many] = wires;
        Ok(Self {
            few: Keyed::new(desk, programs, few, 1)?,
            many: Keyed::new(desk, programs, many, MANY)?,
        })
    }

    /// Returns the configuration with many keys.
    pub(super) fn many(&self) -> &Setup {
        &self.many.setup
    }

    /// Returns a row of each command with one key, and one with many, of which none may take a second more.
    pub(super) fn rows<'r>(&'r self, desk: &'r Desk<'r>) -> Vec<Measured<'r>> {
        type Command = fn(&Keyed, &Desk<'_>) -> Result<Cost>;
        let commands: [(&str, Command); 7] = [
            ("key new", Keyed::new_key),
            ("key list", Keyed::list),
            ("key rotate", Keyed::rotate),
            ("key revoke", Keyed::revoke),
            ("check", Keyed::check),
            ("up", Keyed::up),
            ("reload", Keyed::reload),
        ];
        let mut rows: Vec<Measured<'r>> = Vec::new();
        for (name, command) in commands {
            let floor = format!("{name}, one key");
            let against = second(&floor);
            rows.push((
                floor,
                Vec::<Against>::new(),
                Box::new(move || command(&self.few, desk)),
            ));
            rows.push((
                format!("{name}, 10,000 keys"),
                against,
                Box::new(move || command(&self.many, desk)),
            ));
        }
        rows
    }
}

impl Keyed {
    fn new(desk: &Desk<'_>, programs: &mut Programs, wire: &Wire, count: u16) -> Result<Self> {
        let folder = desk.host.folder.join(format!("{}.keys", wire.name));
        let setup = Setup {
            keys: Some(Slots {
                folder: folder.clone(),
                most: u32::from(count) + MORE,
            }),
            ..Setup::default()
        };
        let instance = Instance::up(desk.host, desk.binary, wire, &setup)?;
        let key = instance.key(FIRST)?;
        instance.grant_by(programs, &key, GRANTS)?;
        copy(&folder, count)?;
        finish(instance.on(desk.host).arg("reload"))?;
        Ok(Self {
            reloaded: Reloaded::new(instance, &setup),
            setup,
            count,
            made: Cell::new(0),
        })
    }

    fn new_key(&self, desk: &Desk<'_>) -> Result<Cost> {
        self.made.set(self.made.get() + 1);
        let name = format!("made{}", self.made.get());
        self.run(desk, &["new", &name, "--gate", "gate0"])
    }

    fn list(&self, _: &Desk<'_>) -> Result<Cost> {
        let mut printed = String::new();
        let cost = timed(|| {
            let mut command = self.reloaded.instance.knockgate();
            printed = output(command.args(["key", "list", "--json"]))?;
            Ok(())
        })?;
        let listed = printed.matches("\"slot\"").count();
        ensure!(
            listed >= usize::from(self.count),
            "`knockgate key list` shows {listed} of {} keys",
            self.count
        );
        Ok(cost)
    }

    fn rotate(&self, desk: &Desk<'_>) -> Result<Cost> {
        self.run(desk, &["rotate", FIRST])
    }

    /// Revokes the key that was made last.
    fn revoke(&self, desk: &Desk<'_>) -> Result<Cost> {
        self.run(desk, &["revoke", &format!("made{}", self.made.get())])
    }

    fn run(&self, desk: &Desk<'_>, arguments: &[&str]) -> Result<Cost> {
        let mut command = self.reloaded.instance.on(desk.host);
        command.arg("key").args(arguments);
        timed(|| finish(&mut command))
    }

    fn check(&self, desk: &Desk<'_>) -> Result<Cost> {
        desk.check(&self.setup)
    }

    fn up(&self, desk: &Desk<'_>) -> Result<Cost> {
        desk.up(&self.setup)
    }

    fn reload(&self, desk: &Desk<'_>) -> Result<Cost> {
        self.reloaded.reload(desk)
    }
}

/// Fills a folder with a file for each of `count` keys, of which the program has made the first: the others have other
/// names, slots and secrets.
fn copy(folder: &Path, count: u16) -> Result<()> {
    let path = |name: &str| -> PathBuf { folder.join(format!("{name}.toml")) };
    let first = path(FIRST);
    let text =
        fs::read_to_string(&first).with_context(|| format!("cannot read {}", first.display()))?;
    for slot in 1..count {
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some((key, "0")) if key.trim() == "slot" => format!("slot = {slot}\n"),
            Some((key, _)) if key.trim() == "secret" => format!("secret = \"{slot:064x}\"\n"),
            _ => format!("{line}\n"),
        });
        let path = path(&format!("copy{slot}"));
        fs::write(&path, lines.collect::<String>())
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
