//! Debian's Prometheus scrapes a service and a node exporter; the alert rules and the dashboard find in it what they ask
//! for.

use std::{collections::BTreeSet, fs, net::SocketAddr, process::Command};

use knockgate_tests::{
    gate_config::ALICE,
    http::{self, encoded},
    lab::Source::A,
    run::{Running, run, wait_until},
    scenario::Scenario,
};
use serde_json::Value;

use super::{LISTEN, gates_with_metrics, in_generic_mode, serve};

const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/prometheus/knockgate.rules.yml"
);
const DASHBOARD: &str = include_str!("../../../packaging/grafana/knockgate.json");
const REFERENCE: &str = include_str!("../../../docs/reference.md");

const TOOLS: &[&str] = &["prometheus", "promtool", "prometheus-node-exporter"];
const SERVER: &str = "127.0.0.1:9090";
const EXPORTER: &str = "127.0.0.1:9100";
/// Metrics without a sample while no trial runs.
const OF_TRIALS: &str = "knockgate_try_left_seconds";

#[test]
fn promtool_finds_nothing_wrong() {
    in_generic_mode(TOOLS, |scenario| {
        run(Command::new("promtool").args(["check", "rules", RULES])).exits(0);
        scenario.up(gates_with_metrics("off"));
        let page = scenario.lab.folder().join("page");
        let text = scenario.knockgate("metrics").exits(0).stdout.clone();
        fs::write(&page, text).expect("writable");
        let page = fs::File::open(page).expect("readable");
        let checked = run(Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(page));
        checked.exits(0).prints_nothing();
        assert_eq!(checked.stderr, "", "{checked:?}");
    });
}

/// Who makes the metric of fwknop's packets appear. Of the last gate.
const OF_FWKNOP: &str = "
    [[gate.fwknop]]
    user = 'fred'
    key = 'a passphrase of this test alone'
    hmac_key = 'and another one, for its HMAC'
";

/// Makes the metrics of a fleet appear. Nobody is there: this host is isolated.
fn of_fleet(scenario: &Scenario) -> String {
    let key = scenario.lab.folder().join("fleet.key");
    let make = format!("fleet key new {}", key.display());
    scenario.knockgate(&make).exits(0);
    format!(
        "[fleet]\nname = 'test'\nhost = 'h1'\nendpoints = ['https://127.0.0.1:2379']\nkeys = ['{}']\n",
        key.display()
    )
}

#[test]
fn prometheus_has_what_rules_and_dashboard_ask_for() {
    in_generic_mode(TOOLS, |scenario| {
        let prometheus = Prometheus::start(scenario);
        // One of the rules is about a mode that nothing else here is in.
        let gates = format!(
            "{}{OF_FWKNOP}{}",
            gates_with_metrics(LISTEN),
            of_fleet(scenario)
        );
        scenario.configure(format!("mode = \"monitor\"\n{gates}"));
        let service = serve(scenario);
        prometheus.has("knockgate_up{mode=\"monitor\"}");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.knockgate("down").exits(0);
        scenario.configure(gates);
        let _service = serve(scenario);
        scenario.knock(A, ALICE);
        let _session = scenario.connected(A, 22);
        scenario.closed(A, "25/tcp");
        let file = scenario.lab.folder().join("knockgate.prom");
        let write = format!("metrics --textfile {}", file.display());
        scenario.knockgate(&write).exits(0);

        prometheus.has("knockgate_up{job=\"knockgate\",mode=\"enforce\"} == 1");
        prometheus.has("knockgate_up{job=\"node\",mode=\"enforce\"} == 1");
        for metric in described_metrics() {
            if metric != OF_TRIALS {
                prometheus.has(&metric);
            }
        }
        // What the panel of a trial shows is there while one runs.
        let (of_trials, lasting): (Vec<_>, Vec<_>) = dashboard()
            .into_iter()
            .partition(|expression| expression.contains(OF_TRIALS));
        for expression in lasting {
            prometheus.has(&expression);
        }
        assert!(!of_trials.is_empty());
        scenario.knockgate("up --try 1h").exits(0);
        for expression in of_trials {
            prometheus.has(&expression);
        }
        for alert in prometheus.rules() {
            let query = alert["query"].as_str().expect("a rule has a query");
            for selector in selectors(query) {
                assert!(
                    prometheus.knows(&selector),
                    "nothing has matched {selector} of {alert}"
                );
            }
        }
    });
}

/// A server, and an exporter that it scrapes besides the service.
struct Prometheus<'s> {
    scenario: &'s Scenario,
    _server: Running,
    _exporter: Running,
}

impl<'s> Prometheus<'s> {
    fn start(scenario: &'s Scenario) -> Self {
        let folder = scenario.lab.folder();
        let config = folder.join("prometheus.yml");
        let job = |name: &str, target: &str| {
            format!("  - job_name: {name}\n    static_configs:\n      - targets: [\"{target}\"]\n")
        };
        let text = format!(
            "global:\n  scrape_interval: 500ms\n  evaluation_interval: 500ms\n\
             rule_files: [\"{RULES}\"]\nscrape_configs:\n{}{}",
            job("knockgate", LISTEN),
            job("node", EXPORTER)
        );
        fs::write(&config, text).expect("writable");
        let in_namespace = |program: &str, arguments: &[String]| {
            let mut command = scenario.lab.host.command(program);
            command.args(arguments);
            command.stderr(fs::File::create(folder.join(program)).expect("writable"));
            Running::start(&mut command, folder)
        };
        let server = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={SERVER}"),
        ];
        let exporter = [
            "--collector.disable-defaults".to_owned(),
            "--collector.textfile".to_owned(),
            format!("--collector.textfile.directory={}", folder.display()),
            format!("--web.listen-address={EXPORTER}"),
        ];
        Self {
            scenario,
            _server: in_namespace("prometheus", &server),
            _exporter: in_namespace("prometheus-node-exporter", &exporter),
        }
    }

    /// Asks the HTTP API; none where the server has not started yet.
    fn ask(&self, path: &str) -> Option<Value> {
        let server: SocketAddr = SERVER.parse().expect("an address");
        let answer = http::get(&self.scenario.lab.host, server, &format!("/api/v1/{path}"))?;
        let document: Value = serde_json::from_str(&answer.body).ok()?;
        assert_eq!(document["status"], "success", "{path}: {document}");
        Some(document["data"].clone())
    }

    /// Waits until an expression has a result.
    #[track_caller]
    fn has(&self, expression: &str) {
        wait_until(&format!("there is a result of {expression}"), || {
            let data = self.ask(&format!("query?query={}", encoded(expression)));
            data.is_some_and(|data| {
                data["result"]
                    .as_array()
                    .is_some_and(|rows| !rows.is_empty())
            })
        });
    }

    /// Whether a selector has ever matched a series.
    fn knows(&self, selector: &str) -> bool {
        let data = self.ask(&format!("series?match[]={}", encoded(selector)));
        data.is_some_and(|data| data.as_array().is_some_and(|rows| !rows.is_empty()))
    }

    /// The alert rules, each of which the server has evaluated.
    fn rules(&self) -> Vec<Value> {
        let mut rules = Vec::new();
        wait_until("every rule has been evaluated", || {
            let data = self.ask("rules").unwrap_or_default();
            rules = data["groups"][0]["rules"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
        });
        for rule in &rules {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        rules
    }
}

/// The metrics that docs/reference.md lists.
fn described_metrics() -> BTreeSet<String> {
    let rows = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| {
        let (name, rest) = row.split_once('`')?;
        // Prometheus has no series with the name of a histogram alone.
        let suffix = if rest.starts_with(" | histogram |") {
            "_count"
        } else {
            ""
        };
        Some(format!("{name}{suffix}"))
    });
    let names: BTreeSet<_> = names
        .filter(|name| name.starts_with("knockgate_"))
        .collect();
    assert!(names.contains(OF_TRIALS), "{names:?}");
    names
}

/// The expressions of the dashboard, with its variables filled in as Grafana does, and those that fill the variables.
fn dashboard() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let mut expressions: BTreeSet<String> = targets
        .map(|target| filled(target["expr"].as_str().expect("a target has an expression")))
        .collect();
    assert!(
        expressions.len() >= panels.len(),
        "a panel has no expression of its own"
    );
    for variable in list(&dashboard["templating"]["list"]) {
        let query = variable["definition"].as_str().unwrap_or_default();
        let of = query.strip_prefix("label_values(");
        let selector = of.and_then(|of| of.rsplit_once(','));
        expressions.extend(selector.map(|(selector, _)| filled(selector)));
    }
    expressions
}

fn filled(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", "1m")
        .replace("$instance", ".*")
        .replace("$gate", ".*");
    assert!(!filled.contains('$'), "an unknown variable in {expression}");
    filled
}

/// The selectors of series in an expression: names of metrics, with the matchers in braces behind them.
fn selectors(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut selectors = BTreeSet::new();
    let mut rest = expression;
    while let Some(begin) = rest.find(is_name) {
        rest = &rest[begin..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        rest = behind;
        let is_metric = ["knockgate_", "node_"]
            .iter()
            .any(|of| name.starts_with(of));
        if is_metric || name == "up" {
            let close = behind.starts_with('{').then(|| behind.find('}')).flatten();
            let matchers = close.map_or("", |close| &behind[..=close]);
            selectors.insert(format!("{name}{matchers}"));
            rest = &behind[matchers.len()..];
        }
    }
    assert!(!selectors.is_empty(), "no selector in {expression}");
    selectors
}
