#[path = "../fleet/lab.rs"]
mod lab;
