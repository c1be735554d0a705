//! A Rust function for the tests: echoes its request, or does what the request's first word says.

use vilya_runtime::{Request, Response};

fn main() {
    vilya_runtime::run(|request: &Request<'_>, response: &mut Response<'_>| -> Result<(), String> {
        match request.payload() {
            b"raise" => Err("asked to".into()),
            b"panic" => panic!("asked to"),
            b"exit" => std::process::exit(3),
            b"id" => response.write(request.id().as_bytes()).map_err(|error| error.to_string()),
            payload => {
                if let Some(content_type) = request.content_type() {
                    response.set_content_type(content_type).map_err(|error| error.to_string())?;
                }
                let room = response.reserve(payload.len()).map_err(|error| error.to_string())?;
                room.copy_from_slice(payload);
                Ok(())
            }
        }
    });
}
