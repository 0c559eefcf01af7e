//! Prints the measurement; `--json` for scripts.
#![forbid(unsafe_code)]

fn main() {
    match bench_crossing::run() {
        Ok(report) if std::env::args().any(|argument| argument == "--json") => println!("{}", report.json()),
        Ok(report) => print!("{}", report.table()),
        Err(error) => {
            eprintln!("bench crossing: {error}");
            std::process::exit(1);
        }
    }
}
