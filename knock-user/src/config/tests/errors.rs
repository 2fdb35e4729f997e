//! One row for each kind of error.

use super::*;

const TOP: &str = "interfaces = [\"eth0\"]\n";
const PROTECT: &str = "protect = [\"22/tcp\"]\n";
const SEQUENCE: &str = "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n";
const SEQUENCE_LINE: &str = "sequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n";
const KNOCK_LINES: &str =
    "user = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n";

/// A key put below `protect` stands on line 7, one below `user` on line 10, one at the top on line 1.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Syntax, which TOML itself refuses.
    Row { what: "no TOML", replace: "name = \"ssh\"", with: "name \"ssh\"",
        code: "syntax", at: (5, 6), says: &["not valid TOML"] },
    Row { what: "a key twice", replace: PROTECT, with: "protect = [\"22/tcp\"]\nprotect = [\"23/tcp\"]\n",
        code: "syntax", at: (7, 1), says: &["duplicate key"] },

    // Unknown keys.
    Row { what: "an unknown key at the top", replace: "interfaces", with: "interfases",
        code: "unknown-key", at: (1, 1), says: &["`interfases`", "the top level", "did you mean `interfaces`?"] },
    Row { what: "an unknown section", replace: TOP, with: "[limit]\ngrants = 5\n",
        code: "unknown-key", at: (1, 2), says: &["`limit`", "did you mean `limits`?"] },
    Row { what: "an unknown key in the limits", replace: "[[gate]]", with: "[limits]\nsesions = 5\n[[gate]]",
        code: "unknown-key", at: (5, 1), says: &["[limits]", "did you mean `sessions`?"] },
    Row { what: "an unknown key in a gate", replace: PROTECT, with: "protect = [\"22/tcp\"]\nopen-for = \"30s\"\n",
        code: "unknown-key", at: (7, 1), says: &["[[gate]]", "did you mean `open_for`?"] },
    Row { what: "an unknown key in a knock", replace: SEQUENCE, with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\nwithni = \"1s\"\n",
        code: "unknown-key", at: (11, 1), says: &["[[gate.knock]]", "did you mean `within`?"] },
    Row { what: "a key like no other", replace: PROTECT, with: "protect = [\"22/tcp\"]\ncolour = 1\n",
        code: "unknown-key", at: (7, 1), says: &["the keys here are `name`, `protect`", "`hook` and `fwknop`"] },
    Row { what: "a key in the wrong section", replace: PROTECT, with: "protect = [\"22/tcp\"]\nmode = \"monitor\"\n",
        code: "unknown-key", at: (7, 1), says: &["it belongs at the top level (before the first [section])"] },

    // Wrong types.
    Row { what: "a string for a list", replace: "[\"192.0.2.0/24\"]", with: "\"192.0.2.0/24\"",
        code: "wrong-type", at: (2, 9), says: &["must be a list", "not the string", "write [\"192.0.2.0/24\"]"] },
    Row { what: "a number for a port", replace: "[\"22/tcp\"]", with: "[22]",
        code: "wrong-type", at: (6, 12), says: &["a port such as", "not the number 22", "write \"22/tcp\" or \"22/udp\""] },
    Row { what: "a number for a duration", replace: PROTECT, with: "protect = [\"22/tcp\"]\nopen_for = 30\n",
        code: "wrong-type", at: (7, 12), says: &["a duration such as", "write \"30s\""] },
    Row { what: "a string for a number", replace: PROTECT, with: "protect = [\"22/tcp\"]\nconnections = \"3\"\n",
        code: "wrong-type", at: (7, 15), says: &["a whole number from 0", "write 3"] },
    Row { what: "a boolean for a word", replace: TOP, with: "mode = true\n",
        code: "wrong-type", at: (1, 8), says: &["\"enforce\" or \"monitor\"", "not the boolean true"] },
    Row { what: "a float for a number", replace: PROTECT, with: "protect = [\"22/tcp\"]\nconnections = 1.5\n",
        code: "wrong-type", at: (7, 15), says: &["not the number 1.5"] },
    Row { what: "a date for a name", replace: "\"ssh\"", with: "1979-05-27",
        code: "wrong-type", at: (5, 8), says: &["not the date 1979-05-27"] },
    Row { what: "a table for a list of tables", replace: "[[gate.knock]]", with: "[gate.knock]",
        code: "wrong-type", at: (8, 1), says: &["each begun with [[gate.knock]]", "not a table"] },
    Row { what: "names of interfaces for sections", replace: "interfaces", with: "interface",
        code: "wrong-type", at: (1, 13), says: &["begins a section, [[interface]]", "write interfaces = [\"eth0\"]"] },
    Row { what: "a value for a table", replace: TOP, with: "limits = 5\n",
        code: "wrong-type", at: (1, 10), says: &["begun with [limits]"] },
    Row { what: "one open port for a list", replace: TOP, with: "open_ports = \"443/tcp\"\n",
        code: "wrong-type", at: (1, 14), says: &["\"auto\" or a list of ports", "write [\"443/tcp\"]"] },
    Row { what: "auto, misspelt", replace: TOP, with: "open_ports = \"atuo\"\n",
        code: "wrong-type", at: (1, 14), says: &["write \"auto\""] },

    // What is missing.
    Row { what: "no name", replace: "name = \"ssh\"\n", with: "",
        code: "missing-key", at: (4, 1), says: &["[[gate]] has no `name`", "name = \"ssh\""] },
    Row { what: "nothing to guard", replace: PROTECT, with: "",
        code: "missing-key", at: (4, 1), says: &["[[gate]] has no `protect`"] },
    Row { what: "an empty list to guard", replace: "[\"22/tcp\"]", with: "[]",
        code: "empty-list", at: (6, 11), says: &["`protect` is empty"] },
    Row { what: "no user", replace: "user = \"alice\"\n", with: "",
        code: "missing-key", at: (8, 1), says: &["[[gate.knock]] has no `user`"] },
    Row { what: "no sequence", replace: "sequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n", with: "",
        code: "missing-key", at: (8, 1), says: &["[[gate.knock]] has no `sequence` and no `key`", "key = \"alice/laptop\""] },

    // Values that cannot be read.
    Row { what: "a duration without unit", replace: PROTECT, with: "protect = [\"22/tcp\"]\nopen_for = \"30\"\n",
        code: "bad-duration", at: (7, 12), says: &["`open_for`", "write 30s, 30m or 30h"] },
    Row { what: "a duration in other words", replace: PROTECT, with: "protect = [\"22/tcp\"]\nsession_idle = \"5 minutes\"\n",
        code: "bad-duration", at: (7, 16), says: &["did you mean \"5m\"?"] },
    Row { what: "a port without protocol", replace: "22/tcp", with: "22",
        code: "bad-port", at: (6, 12), says: &["`protect`", "write 22/tcp or 22/udp"] },
    Row { what: "a misspelt protocol", replace: "2214/tcp", with: "2214/tpc",
        code: "bad-port", at: (10, 25), says: &["`sequence`", "did you mean \"tcp\"?"] },
    Row { what: "port 0", replace: "22/tcp", with: "0/tcp",
        code: "bad-port", at: (6, 12), says: &["port 0 does not exist"] },
    Row { what: "a range of ports", replace: "22/tcp", with: "22-25/tcp",
        code: "bad-port", at: (6, 12), says: &["list each port by itself"] },
    Row { what: "host bits", replace: "192.0.2.0/24", with: "192.0.2.7/24",
        code: "bad-network", at: (2, 10), says: &["write 192.0.2.0/24", "192.0.2.7/32"] },
    Row { what: "host bits in IPv6", replace: "192.0.2.0/24", with: "2001:db8::1/32",
        code: "bad-network", at: (2, 10), says: &["write 2001:db8::/32", "2001:db8::1/128"] },
    Row { what: "no prefix length", replace: "192.0.2.0/24", with: "192.0.2.7",
        code: "bad-network", at: (2, 10), says: &["write 192.0.2.7/32"] },
    Row { what: "too long a prefix", replace: "192.0.2.0/24", with: "192.0.2.0/33",
        code: "bad-network", at: (2, 10), says: &["from /0 to /32"] },
    Row { what: "no network at all", replace: "192.0.2.0/24", with: "office",
        code: "bad-network", at: (2, 10), says: &["like 192.0.2.0/24"] },
    Row { what: "a bad network of a gate", replace: PROTECT, with: "protect = [\"22/tcp\"]\nsources = [\"::1/129\"]\n",
        code: "bad-network", at: (7, 12), says: &["`sources`", "from /0 to /128"] },
    Row { what: "a network with a zone", replace: "192.0.2.0/24", with: "fe80::1%eth0/64",
        code: "bad-network", at: (2, 10), says: &["has a zone", "write fe80::/64, without %eth0"] },
    Row { what: "a single address with a zone", replace: "192.0.2.0/24", with: "fe80::1%eth0",
        code: "bad-network", at: (2, 10), says: &["has a zone", "write fe80::1/128, without %eth0"] },
    Row { what: "an IPv4-mapped network", replace: "192.0.2.0/24", with: "::ffff:192.0.2.7/120",
        code: "bad-network", at: (2, 10), says: &["IPv4 packets do not hold", "write 192.0.2.0/24"] },
    Row { what: "an IPv4-mapped address among networks", replace: "192.0.2.0/24", with: "::ffff:c000:207",
        code: "bad-network", at: (2, 10), says: &["write 192.0.2.7/32"] },
    Row { what: "an IPv4-mapped address of the host", replace: TOP, with: "addresses = [\"::ffff:192.0.2.1\"]\n",
        code: "bad-address", at: (1, 14), says: &["IPv4 packets do not hold", "write 192.0.2.1"] },
    Row { what: "an address of the host with a zone", replace: TOP, with: "addresses = [\"fe80::1%eth0\"]\n",
        code: "bad-address", at: (1, 14), says: &["write fe80::1, without %eth0"] },
    Row { what: "one address without its list", replace: TOP, with: "addresses = \"192.0.2.1\"\n",
        code: "wrong-type", at: (1, 13), says: &["\"host\" or a list", "write [\"192.0.2.1\"]"] },
    Row { what: "another word for the host's addresses", replace: TOP, with: "addresses = \"hots\"\n",
        code: "wrong-type", at: (1, 13), says: &["write \"host\""] },
    Row { what: "a network for an address", replace: TOP, with: "addresses = [\"192.0.2.1/24\"]\n",
        code: "bad-address", at: (1, 14), says: &["write 192.0.2.1 without"] },
    Row { what: "no address at all", replace: TOP, with: "addresses = [\"192.0.2\"]\n",
        code: "bad-address", at: (1, 14), says: &["like 192.0.2.1"] },
    Row { what: "an impossible interface", replace: "eth0", with: "eth0/../..",
        code: "bad-interface", at: (1, 15), says: &["cannot be the name of an interface"] },
    Row { what: "a name with a space", replace: "\"ssh\"", with: "\"my ssh\"",
        code: "bad-name", at: (5, 8), says: &["letters A to Z, digits and . _ -"] },
    Row { what: "an empty name", replace: "\"alice\"", with: "\"\"",
        code: "bad-name", at: (9, 8), says: &["1 to 64 characters, not 0"] },
    Row { what: "a name of 65 characters", replace: "alice",
        with: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        code: "bad-name", at: (9, 8), says: &["1 to 64 characters, not 65"] },
    Row { what: "a misspelt mode", replace: TOP, with: "mode = \"enforced\"\n",
        code: "bad-choice", at: (1, 8), says: &["\"enforce\" or \"monitor\"", "did you mean \"enforce\"?"] },
    Row { what: "a misspelt attach", replace: TOP, with: "attach = \"Generic\"\n",
        code: "bad-choice", at: (1, 10), says: &["\"auto\", \"native\", \"generic\" or \"tcx\"", "did you mean \"generic\"?"] },
    Row { what: "a misspelt grant_to", replace: PROTECT, with: "protect = [\"22/tcp\"]\ngrant_to = \"adress\"\n",
        code: "bad-choice", at: (7, 12), says: &["did you mean \"address\"?"] },
    Row { what: "a misspelt deny", replace: PROTECT, with: "protect = [\"22/tcp\"]\ndeny = \"rejct\"\n",
        code: "bad-choice", at: (7, 8), says: &["did you mean \"reject\"?"] },

    // Bounds.
    Row { what: "no time at all", replace: PROTECT, with: "protect = [\"22/tcp\"]\nopen_for = \"0s\"\n",
        code: "out-of-range", at: (7, 12), says: &["`open_for` must be longer than 0s"] },
    Row { what: "open for over a year", replace: PROTECT, with: "protect = [\"22/tcp\"]\nopen_for = \"8785h\"\n",
        code: "out-of-range", at: (7, 12), says: &["at most 8784h"] },
    Row { what: "idle for over a year", replace: PROTECT, with: "protect = [\"22/tcp\"]\nsession_idle = \"8785h\"\n",
        code: "out-of-range", at: (7, 16), says: &["at most 8784h"] },
    Row { what: "a window over a day", replace: SEQUENCE, with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\nwithin = \"25h\"\n",
        code: "out-of-range", at: (11, 10), says: &["`within` must be at most 24h"] },
    Row { what: "a negative number", replace: PROTECT, with: "protect = [\"22/tcp\"]\nconnections = -1\n",
        code: "out-of-range", at: (7, 15), says: &["from 0 to 4294967295, not -1"] },
    Row { what: "too few sources", replace: "[[gate]]", with: "[limits]\nsources = 16383\n[[gate]]",
        code: "out-of-range", at: (5, 11), says: &["`sources`", "from 16384 to 16777216"] },
    Row { what: "no grants", replace: "[[gate]]", with: "[limits]\ngrants = 0\n[[gate]]",
        code: "out-of-range", at: (5, 10), says: &["`grants`", "from 1 to 16777216, not 0"] },
    Row { what: "too many sessions", replace: "[[gate]]", with: "[limits]\nsessions = 16777217\n[[gate]]",
        code: "out-of-range", at: (5, 12), says: &["`sessions`", "not 16777217"] },
    Row { what: "one knock", replace: "\"2214/tcp\", \"9120/udp\"", with: "",
        code: "sequence-length", at: (10, 12), says: &["2 to 12 knocks, not 1", "add more"] },
    Row { what: "thirteen knocks", replace: SEQUENCE,
        with: "[\"1/udp\", \"2/udp\", \"3/udp\", \"4/udp\", \"5/udp\", \"6/udp\", \"7/udp\", \"8/udp\", \"9/udp\", \"10/udp\", \"11/udp\", \"12/udp\", \"13/udp\"]\n",
        code: "sequence-length", at: (10, 12), says: &["2 to 12 knocks, not 13", "leave some out"] },

    // Duplicates.
    Row { what: "an interface twice", replace: "[\"eth0\"]", with: "[\"eth0\",\n\"eth0\"]",
        code: "duplicate-entry", at: (2, 1), says: &["eth0 is listed already, on line 1"] },
    Row { what: "a network twice", replace: "[\"192.0.2.0/24\"]", with: "[\"192.0.2.0/24\", \"192.0.2.0/24\"]",
        code: "duplicate-entry", at: (2, 26), says: &["`allow`: 192.0.2.0/24", "line 2"] },
    Row { what: "a guarded port twice in a gate", replace: "[\"22/tcp\"]", with: "[\"22/tcp\", \"22/tcp\"]",
        code: "duplicate-entry", at: (6, 22), says: &["`protect`: 22/tcp"] },
    Row { what: "an interface in the list and in a section", replace: "[[gate]]",
        with: "[[interface]]\nname = \"eth0\"\n[[gate]]",
        code: "duplicate-interface", at: (5, 8), says: &["eth0 is named already, on line 1", "in one [[interface]]"] },
    Row { what: "an interface in two sections", replace: "[[gate]]",
        with: "[[interface]]\nname = \"eth1\"\n[[interface]]\nname = \"eth1\"\n[[gate]]",
        code: "duplicate-interface", at: (7, 8), says: &["eth1 is named already, on line 5"] },
    Row { what: "a relative pin", replace: "[[gate]]",
        with: "[[interface]]\nname = \"eth1\"\nnext = \"balancer\"\n[[gate]]",
        code: "bad-next", at: (6, 8), says: &["the absolute path of a pinned program"] },
    Row { what: "a program that follows at TCX", replace: "[[gate]]",
        with: "attach = \"tcx\"\n[[interface]]\nname = \"eth1\"\nnext = \"/sys/fs/bpf/balancer\"\n[[gate]]",
        code: "tcx-next", at: (7, 8), says: &["eth1 has a `next`", "no XDP program calls it"] },
    Row { what: "a section without a name", replace: "[[gate]]", with: "[[interface]]\nnext = \"none\"\n[[gate]]",
        code: "missing-key", at: (4, 1), says: &["[[interface]] has no `name`"] },
    Row { what: "two gates of one name", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate]]\nname = \"ssh\"\nprotect = [\"23/tcp\"]\n",
        code: "duplicate-gate", at: (12, 8), says: &["a gate \"ssh\" already, on line 5"] },
    Row { what: "two users of one name", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate.knock]]\nuser = \"alice\"\nsequence = [\"1/udp\", \"2/udp\"]\n",
        code: "duplicate-user", at: (12, 8), says: &["gate \"ssh\" has a user \"alice\" already, on line 9"] },

    // Contradictions.
    Row { what: "a port in two gates", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate]]\nname = \"two\"\nprotect = [\"22/tcp\"]\n",
        code: "port-in-two-gates", at: (13, 12), says: &["22/tcp is guarded by gate \"ssh\" already, on line 6"] },
    Row { what: "a knock on a guarded port", replace: "2214/tcp", with: "22/tcp",
        code: "knock-on-protected-port", at: (10, 25), says: &["22/tcp cannot be knocked on", "gate \"ssh\" guards it, on line 6"] },
    Row { what: "a guarded port that is open", replace: TOP, with: "open_ports = [\"443/tcp\", \"22/tcp\"]\n",
        code: "open-port-conflict", at: (1, 26), says: &["22/tcp cannot be an open port", "gate \"ssh\" guards it, on line 6"] },
    Row { what: "a knock on an open port", replace: TOP, with: "open_ports = [\"2214/tcp\"]\n",
        code: "open-port-conflict", at: (1, 15), says: &["2214/tcp cannot be an open port", "a knock of a sequence, on line 10"] },
    Row { what: "a sequence twice", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate.knock]]\nuser = \"bob\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n",
        code: "sequence-twice", at: (13, 12), says: &["user \"alice\" in gate \"ssh\" on line 10"] },
    Row { what: "a sequence twice, in two gates", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate]]\nname = \"two\"\nprotect = [\"23/tcp\"]\n[[gate.knock]]\nuser = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n",
        code: "sequence-twice", at: (16, 12), says: &["user \"alice\" in gate \"ssh\" on line 10"] },
    Row { what: "a sequence that ends with another", replace: SEQUENCE,
        with: "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate.knock]]\nuser = \"bob\"\nsequence = [\"2214/tcp\", \"9120/udp\"]\n",
        code: "sequence-overlap", at: (10, 12), says: &["ends with the sequence of user \"bob\" in gate \"ssh\" on line 13", "last 2 knocks"] },

    Row { what: "a bare port to listen on", replace: "[[gate]]", with: "[metrics]\nlisten = 9464\n[[gate]]",
        code: "wrong-type", at: (5, 10), says: &["write \"127.0.0.1:9464\""] },
    Row { what: "a name to listen on", replace: "[[gate]]", with: "[metrics]\nlisten = \"localhost:9464\"\n[[gate]]",
        code: "bad-listen", at: (5, 10), says: &["write \"127.0.0.1:9464\""] },
    Row { what: "a key that metrics do not have", replace: "[[gate]]", with: "[metrics]\nport = 9464\n[[gate]]",
        code: "unknown-key", at: (5, 1), says: &["in [metrics]"] },

    // Keys. `[knock]` stands on line 4, before the gate.
    Row { what: "a sequence and a key", replace: KNOCK_LINES,
        with: "user = \"alice\"\nkey = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[knock]\nports = [\"41641/udp\"]\n",
        code: "exclusive-keys", at: (10, 1), says: &["both `sequence` and `key`", "leave one out"] },
    Row { what: "a key without a port", replace: SEQUENCE_LINE, with: "key = \"alice/laptop\"\n",
        code: "no-knock-port", at: (10, 7), says: &["ports = [\"41641/udp\"]"] },
    Row { what: "a key that is none", replace: SEQUENCE_LINE, with: "key = \"alice laptop\"\n",
        code: "bad-key", at: (10, 7), says: &["`key`", "such as alice or alice/laptop"] },
    Row { what: "somebody else's key", replace: KNOCK_LINES, with: "user = \"alice\"\nkey = \"bob/laptop\"\n[knock]\nports = [\"41641/udp\"]\n",
        code: "key-of-another-user", at: (10, 7), says: &["that of bob", "that of alice"] },
    Row { what: "a key twice at one gate", replace: KNOCK_LINES,
        with: "user = \"alice\"\nkey = \"alice\"\n[[gate.knock]]\nuser = \"alice\"\nkey = \"alice\"\n[knock]\nports = [\"41641/udp\"]\n",
        code: "duplicate-key", at: (13, 7), says: &["key alice opens gate \"ssh\" already, on line 10"] },
    Row { what: "a key with a window", replace: KNOCK_LINES,
        with: "user = \"alice\"\nkey = \"alice\"\nwithin = \"10s\"\n[knock]\nports = [\"41641/udp\"]\n",
        code: "exclusive-keys", at: (11, 1), says: &["`within` is for a sequence"] },
    Row { what: "a TCP port for datagrams", replace: "[[gate]]", with: "[knock]\nports = [\"41641/tcp\"]\n[[gate]]",
        code: "not-udp", at: (5, 10), says: &["write \"41641/udp\""] },
    Row { what: "a port of a sequence for datagrams", replace: "[[gate]]", with: "[knock]\nports = [\"9120/udp\"]\n[[gate]]",
        code: "knock-port-in-sequence", at: (5, 10), says: &["9120/udp cannot take", "on line 12"] },
    Row { what: "a folder that depends on where one is", replace: "[[gate]]", with: "[knock]\nkeys = \"keys\"\n[[gate]]",
        code: "bad-folder", at: (5, 8), says: &["absolute path"] },
    Row { what: "an age that no clock needs", replace: "[[gate]]", with: "[knock]\nmax_age = \"61m\"\n[[gate]]",
        code: "out-of-range", at: (5, 11), says: &["`max_age` must be at most 1h"] },
    Row { what: "more keys than a packet can name", replace: "[[gate]]", with: "[limits]\nkeys = 65536\n[[gate]]",
        code: "out-of-range", at: (5, 8), says: &["`keys`", "from 1 to 65535"] },

    // What later versions bring.
    // Alerts and hooks.
    Row { what: "a word for a number of failures", replace: "[[gate]]", with: "[alert]\nfailures = \"many\"\n[[gate]]",
        code: "wrong-type", at: (5, 12), says: &["a whole number from 0 to 10000"] },
    Row { what: "an unknown subject of alerts", replace: "[[gate]]", with: "[alert]\nper = \"subnet\"\n[[gate]]",
        code: "bad-choice", at: (5, 7), says: &["\"source\" or \"prefix\""] },
    Row { what: "a hook on no event", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"open\"\nrun = [\"/bin/true\"]\n[[gate.knock]]",
        code: "bad-choice", at: (9, 6), says: &["\"opened\", \"closed\" or \"alert\"", "did you mean \"opened\"?"] },
    Row { what: "a hook that runs nothing", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\nrun = []\n[[gate.knock]]",
        code: "empty-list", at: (10, 7), says: &["`run` is empty"] },
    Row { what: "a hook without a program", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\n[[gate.knock]]",
        code: "missing-key", at: (8, 1), says: &["[[gate.hook]] has no `run`"] },
    Row { what: "a line of shell", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\nrun = \"/bin/mail root\"\n[[gate.knock]]",
        code: "wrong-type", at: (10, 7), says: &["must be a list", "write [\"/bin/mail root\"]"] },
    Row { what: "a program without a path", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\nrun = [\"logger\"]\n[[gate.knock]]",
        code: "relative-program", at: (10, 8), says: &["absolute path", "/usr/bin/logger", "/bin/sh"] },
    Row { what: "a placeholder with a typing error", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\nrun = [\"/bin/echo\", \"{surce}\"]\n[[gate.knock]]",
        code: "bad-argument", at: (10, 21), says: &["unknown placeholder {surce}", "did you mean {source}?"] },
    Row { what: "a placeholder like no other", replace: "[[gate.knock]]", with: "[[gate.hook]]\non = \"opened\"\nrun = [\"/bin/echo\", \"{hostname}\"]\n[[gate.knock]]",
        code: "bad-argument", at: (10, 21), says: &["{event} {interface} {gate}", "write { hostname }"] },
];

#[test]
fn every_error_is_alone_and_in_its_place_and_says_what_to_write() {
    for row in ROWS {
        let error = Config::parse(&row.text(), "k.toml").expect_err(row.what);
        row.assert_is(error.findings());
        assert_eq!(error.findings()[0].level, Level::Error);
    }
}

#[test]
fn no_gate_is_an_error_of_the_whole_file() {
    for text in ["", "interfaces = [\"eth0\"]\n"] {
        let error = Config::parse(text, "k.toml").expect_err("nothing to guard");
        let [finding] = error.findings() else {
            panic!("{error}")
        };
        assert_eq!(
            (finding.code, finding.line, finding.column),
            ("no-gate", None, None)
        );
    }
}

#[test]
fn a_single_gate_table_is_answered_with_double_brackets() {
    let error = Config::parse("[gate]\nname = \"ssh\"\nprotect = [\"22/tcp\"]\n", "k.toml")
        .expect_err("[gate]");
    let [finding] = error.findings() else {
        panic!("{error}")
    };
    assert_eq!((finding.code, finding.line), ("wrong-type", Some(1)));
    assert!(finding.message.contains("[[gate]]"), "{finding}");
}

#[test]
fn the_edge_of_each_bound_is_valid() {
    for (replace, with) in [
        (
            PROTECT,
            "protect = [\"22/tcp\"]\nopen_for = \"8784h\"\nsession_idle = \"1ms\"\nconnections = 4294967295\n",
        ),
        (
            SEQUENCE,
            "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\nwithin = \"24h\"\n",
        ),
        (SEQUENCE, "[\"1/udp\", \"1/udp\"]\n"),
        (
            SEQUENCE,
            "[\"1/udp\", \"2/udp\", \"3/udp\", \"4/udp\", \"5/udp\", \"6/udp\", \"7/udp\", \"8/udp\", \"9/udp\", \"10/udp\", \"11/udp\", \"65535/udp\"]\n",
        ),
        // Beginning with another, or holding it in the middle, opens nothing twice.
        (
            SEQUENCE,
            "[\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[[gate.knock]]\nuser = \"bob\"\nsequence = [\"7431/udp\", \"2214/tcp\"]\n",
        ),
        // The same number of the other protocol is another port.
        ("2214/tcp", "22/udp"),
        ("\"eth0\"", "\"eth0\", \"wlan0.100\""),
        ("192.0.2.0/24", "0.0.0.0/0"),
    ] {
        let text = GOOD.replacen(replace, with, 1);
        assert!(
            Config::parse(&text, "k.toml").is_ok(),
            "{with}: {}",
            Config::parse(&text, "k.toml").unwrap_err()
        );
    }
}
