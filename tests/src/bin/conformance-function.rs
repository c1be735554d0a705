//! The conformance function in Rust: `tests/suite/end_to_end/runtimes.rs` says what it must do.

use std::sync::Barrier;
use std::time::Duration;

use vilya_runtime::{Request, Response};

/// Its name is the type of the failure.
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() {
    if std::env::var_os("BROKEN").is_some() {
        std::process::exit(4);
    }
    let met = Barrier::new(4);
    vilya_runtime::run(|request: &Request<'_>, response: &mut Response<'_>| {
        answer(request, response, &met).map_err(|error| Refused(error.to_string()))
    });
}

fn answer(request: &Request<'_>, response: &mut Response<'_>, met: &Barrier) -> Result<(), Box<dyn std::error::Error>> {
    match request.payload() {
        b"raise" => return Err("asked \"to\"".into()),
        b"exit" => std::process::exit(3),
        b"id" => response.write(request.id().as_bytes())?,
        b"environment" => response.write(std::env::var("GREETING")?.as_bytes())?,
        b"meet" => {
            met.wait();
            response.write(b"met")?;
        }
        b"large" => {
            response.reserve(response.limit() + 1)?;
        }
        b"print" => {
            print!("to stdout");
            eprintln!("to stderr");
            println!();
        }
        b"remaining" => response.write(request.remaining().as_millis().to_string().as_bytes())?,
        b"wait" => {
            println!("waiting");
            while !request.cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            println!("gave up");
        }
        word if word.starts_with(b"parts") => parts(word, response)?,
        payload => {
            if let Some(content_type) = request.content_type() {
                response.set_content_type(content_type)?;
            }
            response.reserve(payload.len())?.copy_from_slice(payload);
        }
    }
    Ok(())
}

fn parts(word: &[u8], response: &mut Response<'_>) -> Result<(), Box<dyn std::error::Error>> {
    response.set_content_type("text/csv")?;
    match word {
        b"parts" => {
            for part in ["one,", "zwei,", ""] {
                response.write(part.as_bytes())?;
                response.send_part()?;
            }
            response.write(b"three")?;
        }
        b"parts large" => {
            for number in 0..64 {
                response.reserve(1 << 20)?.fill(number);
                response.send_part()?;
            }
        }
        // What is left after the last part is more than a part.
        b"parts tail" => {
            response.write(b"begun")?;
            response.send_part()?;
            response.reserve(3 << 20)?.fill(7);
        }
        b"parts raise" | b"parts exit" => {
            response.write(b"begun")?;
            response.send_part()?;
            if word == b"parts exit" {
                std::process::exit(3);
            }
            return Err("in the middle".into());
        }
        _ => loop {
            response.write(b"tick\n")?;
            if let Err(error) = response.send_part() {
                println!("not taken");
                return Err(error.into());
            }
        },
    }
    Ok(())
}
