//! The members of these rows are what the rows take them for.

use knockgate_tests::fleet::{Fleet, engine::port_of_member};

const KEY: &str = "/anything";

#[test]
fn members_are_harmed_as_the_rows_say() {
    Fleet::run(0, |fleet| {
        let engine = &fleet.engine;
        engine.start();
        let value = |value: &str| vec![(KEY.to_owned(), value.to_owned())];
        engine.put(KEY, b"1");
        assert_eq!(engine.get(KEY), value("1"));
        engine.put(KEY, b"2");
        engine.compact();
        assert_eq!(engine.get(KEY), value("2"));
        let old = format!("--rev={}", engine.revision() - 1);
        engine
            .etcdctl(&["get", KEY, &old])
            .exits(1)
            .says(&["compacted"]);

        // Killed, and stopped, and cut off: the others choose another leader, and have what was written.
        let first = engine.leader();
        engine.kill(first);
        let second = engine.leader();
        assert_ne!(second, first);
        engine.put(KEY, b"3");
        engine.restart(first);
        engine.all_answer();
        let leader = engine.leader();
        engine.cut(&port_of_member(leader));
        let others = engine.numbers().filter(|number| *number != leader);
        engine.among(others);
        assert_ne!(engine.leader(), leader);
        engine.put(KEY, b"4");
        engine.heal(&port_of_member(leader));
        engine.among(engine.numbers());
        engine.all_answer();
        assert_eq!(engine.get(KEY), value("4"));

        engine.begin_anew();
        assert_eq!(engine.get(KEY), []);
        engine.kill_all();
        engine
            .etcdctl(&["--command-timeout", "1s", "get", KEY])
            .exits(1);
    });
}
