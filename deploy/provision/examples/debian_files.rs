//! Unpacks a program's packages into the cache and lists the libraries that it needs.

#![forbid(unsafe_code)]

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = provision::debian_packages("linux-programs", "bookworm", &["fio", "redis-server"])?;
    for program in ["usr/bin/fio", "usr/bin/redis-check-rdb"] {
        let libraries = files.libraries(program)?;
        println!("{program}: {} libraries", libraries.len());
    }
    println!(
        "{}",
        provision::debian_source("redis-source", "bookworm", "redis")?.display()
    );
    Ok(())
}
