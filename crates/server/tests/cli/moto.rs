//! An S3 server made by others, moto's, in a process of its own; and a proxy before it that fails now and then.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo::core::rng::Rng;

use crate::home::until;

pub(crate) const BUCKET: &str = "checkpoints";

/// The server, with one empty bucket.
pub(crate) struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts it, if it is installed where `scripts/setup.sh` puts it.
    pub(crate) fn start() -> Option<Self> {
        let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|_| std::env::var("HOME").map(|home| PathBuf::from(home).join(".cache"))).unwrap();
        let program = cache.join("ruslo/moto/bin/moto_server");
        if !program.exists() {
            eprintln!("skipped: {} is not installed; ./test does that", program.display());
            return None;
        }
        // Somebody else could take the port in between: nobody on this machine waits for that.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().unwrap(), address };
        until("the S3 server", || TcpStream::connect(address).is_ok());
        let created = ask(address, &format!("PUT /{BUCKET}"), b"").unwrap();
        assert!(created.starts_with("HTTP/1.1 200"), "{created}");
        Some(server)
    }

    /// What the job is told about it, behind `address`.
    pub(crate) fn variables(address: SocketAddr) -> [(&'static str, String); 6] {
        [
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-prints".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{address}")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_TIMEOUT", "3 seconds".to_owned()),
        ]
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names of all objects that begin with `prefix`, ascending.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<String> {
        let answer = ask(self.address, &format!("GET /{BUCKET}?list-type=2&prefix={prefix}"), b"").unwrap();
        let names = answer.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned());
        names.collect()
    }

    /// An object's bytes, as far as they are text.
    pub(crate) fn object(&self, name: &str) -> String {
        let answer = ask(self.address, &format!("GET /{BUCKET}/{name}"), b"").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub(crate) fn remove(&self, name: &str) {
        let answer = ask(self.address, &format!("DELETE /{BUCKET}/{name}"), b"").unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who asks: the server looks for the key's name, not for the signature.
const WHO: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                   SignedHeaders=host, Signature=none";

/// Asks as the owner; the whole answer.
fn ask(address: SocketAddr, what: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: {address}\r\n{WHO}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It is not done, and the answer is 500.
    Refused,
    /// It is done, and the answer is 500.
    DoneAndRefused,
    /// It is done, and the connection ends without an answer.
    DoneAndDropped,
    /// It is done, and the answer comes when nobody waits any more.
    DoneAndLate,
}

/// Chooses what happens to a request, by its first line.
pub(crate) type Choose = dyn FnMut(&str) -> Fault + Send;

/// Stands before the server.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(server: &Moto, choose: Box<Choose>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, behind) = (listener.local_addr().unwrap(), server.address);
        let (faults, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let choose = Arc::new(Mutex::new(choose));
        let (counted, ended) = (Arc::clone(&faults), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (choose, counted) = (Arc::clone(&choose), Arc::clone(&counted));
                std::thread::spawn(move || {
                    // A client that goes away in the middle is no fault of the proxy.
                    let _ = serve(stream.unwrap(), behind, &choose, &counted);
                });
            }
        });
        Self { address, faults, is_over }
    }

    /// One that fails so often in a hundred requests, in every way; but not twice in turn for one request, so that trying again
    /// always helps.
    pub(crate) fn flaky(server: &Moto, percent: usize, seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let all = [Fault::Refused, Fault::DoneAndRefused, Fault::DoneAndDropped, Fault::DoneAndLate];
        let mut failed = BTreeSet::new();
        let choose = move |line: &str| {
            if failed.remove(line) || rng.below(100) >= percent {
                return Fault::None;
            }
            failed.insert(line.to_owned());
            all[rng.below(all.len())]
        };
        Self::before(server, Box::new(choose))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have met a fault.
    pub(crate) fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves one request of a connection, and ends it.
fn serve(
    client: TcpStream,
    behind: SocketAddr,
    choose: &Mutex<Box<Choose>>,
    faults: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let fault = choose.lock().unwrap()(head.lines().next().unwrap_or_default());
    faults.fetch_add(usize::from(fault != Fault::None), Ordering::Relaxed);
    let answer = if fault == Fault::Refused { Vec::new() } else { forward(behind, &head, &body)? };
    let mut client = client;
    match fault {
        Fault::None => client.write_all(&answer)?,
        Fault::Refused | Fault::DoneAndRefused => {
            let body = "<Error><Code>InternalError</Code></Error>";
            let length = body.len();
            let head = "HTTP/1.1 500 Internal Server Error\r\nConnection: close";
            write!(client, "{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        }
        Fault::DoneAndDropped => {}
        Fault::DoneAndLate => std::thread::sleep(Duration::from_secs(4)),
    }
    client.shutdown(std::net::Shutdown::Both)
}

fn forward(behind: SocketAddr, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(behind)?;
    let mut lines: Vec<_> =
        head.trim_end().lines().filter(|line| !line.to_lowercase().starts_with("connection:")).collect();
    lines.push("Connection: close");
    server.write_all(lines.join("\r\n").as_bytes())?;
    server.write_all(b"\r\n\r\n")?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
