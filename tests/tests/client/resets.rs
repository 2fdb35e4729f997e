//! `--connect` to servers that reset the connection, or close one direction.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use knockgate_tests::{
    gate_config::ALICE_STEPS,
    lab::Lab,
    need,
    run::{Run, run},
    scenario::Scenario,
};
use socket2::SockRef;

use crate::{rounds, scenario, ssh};

const PORT: u16 = 2022;
const MEGABYTE: usize = 1 << 20;

/// Returns a lab with a server of the test's own on a port that is open.
fn with_server(
    serve: impl Fn(TcpStream) + Send + 'static,
) -> Option<(Scenario, thread::JoinHandle<()>)> {
    let scenario = scenario(Lab::build(&[]))?;
    scenario.up(ssh().protect("2022/tcp"));
    let listener = scenario
        .lab
        .host
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port"));
    // The thread ends with the test's process.
    let server = thread::spawn(move || {
        while let Ok((connection, _)) = listener.accept() {
            serve(connection);
        }
    });
    Some((scenario, server))
}

/// Runs a shell script in which `$client` is the client's command line.
fn pipeline(scenario: &Scenario, script: &str) -> Run {
    let mut command = scenario.lab.client.command("bash");
    let steps = ALICE_STEPS.join(" ");
    let client = format!(
        "{} knock 10.77.0.1 {steps} --connect {PORT}/tcp",
        need::knockgate().display()
    );
    command.args(["-c", script]).env("client", client);
    run(&mut command)
}

fn reset(connection: TcpStream) {
    SockRef::from(&connection)
        .set_linger(Some(Duration::ZERO))
        .expect("close by reset");
    drop(connection);
}

/// Runs the client with different inputs; every run must end with a message and status 1.
#[track_caller]
fn every_reset_is_told(what: &str, scenario: &Scenario) {
    let rounds = rounds(8);
    let mut told = 0;
    let mut first = None;
    for round in 0..rounds {
        let script = [
            "$client </dev/null",
            // Input that stays open without data.
            "exec 9< <(exec sleep 20 2>/dev/null); $client <&9",
            "head -c 300000 /dev/zero | $client",
            "yes | $client",
        ][round % 4];
        let run = pipeline(scenario, script);
        if run.code == Some(1) && run.stderr.contains("broke off: ") {
            told += 1;
        } else {
            first.get_or_insert(run);
        }
    }
    eprintln!("{what}: {told} of {rounds} told");
    assert!(
        first.is_none(),
        "{what}: {told} of {rounds} told; {first:#?}"
    );
}

#[test]
fn a_reset_as_soon_as_it_is_accepted() {
    let Some((scenario, _server)) = with_server(reset) else {
        return;
    };
    every_reset_is_told("reset after accept", &scenario);
}

#[test]
fn a_reset_after_the_server_has_spoken() {
    let serve = |mut connection: TcpStream| {
        // The client may have ended already.
        let _ = connection.write_all(b"hello\n");
        reset(connection);
    };
    let Some((scenario, _server)) = with_server(serve) else {
        return;
    };
    every_reset_is_told("reset after data", &scenario);
}

#[test]
fn a_reset_in_the_middle_of_a_stream() {
    let serve = |mut connection: TcpStream| {
        // Both directions are busy when the reset comes.
        let (mut buffer, chunk) = (vec![0; 10_000], vec![1; 10_000]);
        connection
            .set_nonblocking(true)
            .expect("a socket that never waits");
        for _ in 0..50 {
            // The client may send nothing, or slowly.
            let _ = connection.read(&mut buffer);
            let _ = connection.write(&chunk);
            thread::sleep(Duration::from_millis(1));
        }
        reset(connection);
    };
    let Some((scenario, _server)) = with_server(serve) else {
        return;
    };
    every_reset_is_told("reset in the middle", &scenario);
}

/// The peer reads everything, then sends how much it was, after the client's input has ended.
#[test]
fn all_of_standard_input_is_delivered() {
    let serve = |mut connection: TcpStream| {
        let mut all = Vec::new();
        let said = connection.read_to_end(&mut all).map(|_| all.len());
        let _ = writeln!(connection, "{said:?}");
    };
    let Some((scenario, _server)) = with_server(serve) else {
        return;
    };
    let run = pipeline(&scenario, "printf hello | $client | cat");
    assert_eq!(run.exits(0).stdout, "Ok(5)\n");
    let run = pipeline(&scenario, "head -c 30000000 /dev/zero | $client | cat");
    assert_eq!(run.exits(0).stdout, "Ok(30000000)\n");
}

/// The peer sends its data, closes that direction, and continues to read.
#[test]
fn input_goes_on_after_the_peer_has_ended_its_direction() {
    let (sender, received) = mpsc::channel();
    let serve = move |mut connection: TcpStream| {
        connection
            .write_all(&vec![b'x'; MEGABYTE])
            .expect("the client reads");
        connection
            .shutdown(std::net::Shutdown::Write)
            .expect("half a connection");
        let mut all = Vec::new();
        let taken = connection.read_to_end(&mut all).map(|_| all.len());
        sender.send(taken).expect("the test waits");
    };
    let Some((scenario, _server)) = with_server(serve) else {
        return;
    };
    for script in [
        "head -c 5000000 /dev/zero | $client",
        "{ sleep 0.2; head -c 5000000 /dev/zero; } | $client",
    ] {
        let run = pipeline(&scenario, &format!("set -o pipefail; {script} | wc -c"));
        assert_eq!(run.exits(0).stdout.trim(), MEGABYTE.to_string());
        let taken = received
            .recv_timeout(Duration::from_mins(1))
            .expect("the server ends");
        assert_eq!(taken.expect("no reset"), 5_000_000);
    }
}

/// Standard output is closed while standard input stays open.
#[test]
fn the_peers_end_is_passed_on_at_once() {
    let serve = |mut connection: TcpStream| {
        connection.write_all(b"bye\n").expect("the client reads");
    };
    let Some((scenario, _server)) = with_server(serve) else {
        return;
    };
    // The reader closes the input when it sees the end of the output, as ssh does.
    let script = "coproc $client; pid=$COPROC_PID input=${COPROC[1]}; cat <&\"${COPROC[0]}\"; eval \"exec $input>&-\"; wait $pid";
    assert_eq!(pipeline(&scenario, script).exits(0).stdout, "bye\n");
}
