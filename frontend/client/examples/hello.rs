//! Invokes a function of a running worker:
//!
//! ```sh
//! cargo run -p vilya-client --example hello -- hello '{"name": "you"}' [127.0.0.1:7879]
//! ```

use std::process::ExitCode;
use std::time::Duration;

use vilya_client::{Client, Error};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, payload, address) = match arguments.as_slice() {
        [name, payload] => (name, payload, "127.0.0.1:7879"),
        [name, payload, address] => (name, payload, address.as_str()),
        _ => {
            eprintln!("usage: hello NAME PAYLOAD [HOST:PORT]");
            return ExitCode::from(2);
        }
    };
    match invoke(address, name, payload.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn invoke(address: &str, name: &str, payload: &[u8]) -> Result<(), Error> {
    // The server gives up after 10 s, and the client, which has the way back to wait for as well, a little later.
    let client = Client::builder().deadline(Duration::from_secs(10));
    let mut client = client.timeouts(Duration::from_secs(2), Duration::from_secs(12)).connect(address)?;
    let answer = client.invoke(name, payload)?;
    println!("{}", String::from_utf8_lossy(&answer.body));
    let report = answer.report;
    let (queue_us, run_us) = (report.queue_us, report.run_us);
    eprintln!("status {}, shard {}, queue {queue_us} us, run {run_us} us", answer.status, report.shard);
    Ok(())
}
