//! A working directory of its own for each test, and the command running in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// After this a process is taken for stuck. Generous: other tests, and other builds, run at the same time.
const STUCK: Duration = Duration::from_secs(120);

/// A working directory.
pub(crate) struct Home(TempDir);

/// What a process said, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit code; none, if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// The error that it told, without what comes after.
    pub(crate) fn error(&self) -> &str {
        let error = self.err.split_once("error: ").map(|(_, error)| error);
        let error = error.unwrap_or_else(|| panic!("no error in: {self:?}"));
        error.lines().position(|line| line.contains(": failed after ")).map_or(error.trim_end(), |_| {
            let end = error.find(": failed after ").unwrap();
            error[..end].rsplit_once('\n').unwrap().0
        })
    }

    /// The summary, where it was asked for as JSON.
    pub(crate) fn summary(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_else(|| panic!("nothing on standard output: {self:?}"));
        serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON at the end: {self:?}"))
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }
}

/// Waits until `holds`, which is looked at again and again; `what` is told if it never does.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + STUCK;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ruslo"));
        command.args(arguments).current_dir(self.0.path()).env_remove("RUSLO_LOG").stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn ruslo(&self, arguments: &[&str]) -> Answer {
        self.start(arguments).end()
    }

    /// Runs a line of shell to its end.
    pub(crate) fn shell(&self, line: &str) -> Answer {
        let mut command = Command::new("sh");
        self.spawn(command.args(["-c", line]).current_dir(self.0.path()).stdin(Stdio::null())).end()
    }

    /// Starts the command.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(&mut self.command(arguments))
    }

    /// Starts the command with these variables in its environment.
    pub(crate) fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.spawn(self.command(arguments).envs(variables.iter().copied()))
    }

    /// Starts another program.
    pub(crate) fn start_program(&self, program: &Path, arguments: &[String]) -> Running {
        let mut command = Command::new(program);
        self.spawn(command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()))
    }

    /// Starts the command with a standard output that nobody reads.
    pub(crate) fn start_unread(&self, arguments: &[&str]) -> Running {
        self.spawn_with(&mut self.command(arguments), Some(Stdio::piped()))
    }

    fn spawn(&self, command: &mut Command) -> Running {
        self.spawn_with(command, None)
    }

    fn spawn_with(&self, command: &mut Command, out: Option<Stdio>) -> Running {
        let said = tempfile::tempdir().unwrap();
        let file = |name| fs::File::create(said.path().join(name)).unwrap();
        let out = out.unwrap_or_else(|| file("out").into());
        let child = command.stdout(out).stderr(file("err")).spawn().unwrap();
        Running { child, said }
    }

    /// The visible lines of a sink's folder, sorted.
    pub(crate) fn rows(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let visible = paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
        let texts: Vec<_> = visible.map(|path| fs::read_to_string(path).unwrap()).collect();
        let mut rows: Vec<_> = texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// The checkpoints in a folder, oldest first.
    pub(crate) fn manifests(&self, folder: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path(folder).join("manifests")) else { return Vec::new() };
        let mut paths: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json") && !is_hidden(path))
            .collect();
        paths.sort();
        paths
    }

    /// The newest checkpoint in a folder; 0, if there is none.
    pub(crate) fn newest_epoch(&self, folder: &str) -> u64 {
        let newest = self.manifests(folder).pop();
        newest.map_or(0, |path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

/// A process at work.
pub(crate) struct Running {
    child: Child,
    said: TempDir,
}

impl Running {
    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.said.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// What it has said on standard error so far.
    pub(crate) fn err(&self) -> String {
        self.text("err")
    }

    /// Waits until it has said `text` on standard error.
    pub(crate) fn until_it_says(&mut self, text: &str) {
        until(text, || {
            let ended = self.child.try_wait().unwrap();
            let said = self.err();
            assert!(said.contains(text) || ended.is_none(), "it ended without saying '{text}': {said}");
            said.contains(text)
        });
    }

    /// Waits until there is a checkpoint `epoch` in the folder `c` of `home`.
    pub(crate) fn until_checkpoint(&mut self, home: &Home, epoch: u64) {
        until("a checkpoint", || {
            assert!(!self.is_over(), "it ended too early: {}", self.err());
            home.newest_epoch("c") >= epoch
        });
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends `signal`: `INT`, `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard output that nobody reads.
    pub(crate) fn take_out(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// How it ended, once it has: none, if a signal ended it.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill_now(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same, and what it had said.
    pub(crate) fn kill(mut self) -> Answer {
        self.kill_now();
        self.end()
    }

    /// Waits until it has ended.
    pub(crate) fn end(mut self) -> Answer {
        until("the end of the process", || self.is_over());
        let code = self.child.wait().unwrap().code();
        Answer { code, out: self.text("out"), err: self.text("err") }
    }
}

impl Drop for Running {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A script that copies the numbers of `in.csv` into `out`.
pub(crate) const COPY: &str = "\
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
CREATE TABLE copy (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
INSERT INTO copy SELECT n FROM numbers;
";

/// The lines `1` to `last`.
pub(crate) fn numbers(last: u64) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

/// The lines of [`numbers`] as [`Home::rows`] gives them.
pub(crate) fn sorted_numbers(last: u64) -> Vec<String> {
    let mut lines: Vec<_> = (1..=last).map(|n| n.to_string()).collect();
    lines.sort();
    lines
}
