//! Checkpoint folders that cannot be used: each is refused by the name of the file, with the mend, and nothing is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::checkpoint::{killed, runs};
use crate::home::Home;
use crate::kill::Pipeline;

const RUN: [&str; 5] = ["run", "departures.sql", "--checkpoint-dir", "c", "--resume"];

fn check(home: &Home) {
    Pipeline { name: "departures", output: "output", rounds: 0, rows_per_second: "" }.check(home);
}

/// The manifest with another version in its header, and a checksum that fits: CRC-32 as zlib and Python have it.
fn of_version(path: &Path, version: u32) -> Vec<u8> {
    let program = "
import sys, zlib
body = open(sys.argv[1], 'rb').read().split(b'\\n', 1)[1]
start = b'ruslo-checkpoint %d ' % int(sys.argv[2])
sys.stdout.buffer.write(b'%s%08x %d\\n' % (start, zlib.crc32(start + body), len(body)) + body)";
    let version = version.to_string();
    let mut python = Command::new("python3");
    let made = python.args(["-c", program]).arg(path).arg(&version).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

#[test]
fn a_checkpoint_of_a_newer_version_is_left_to_it() {
    let home = killed();
    let newest = home.manifests("c").pop().unwrap();
    let original = fs::read(&newest).unwrap();
    fs::write(&newest, of_version(&newest, 99)).unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    for arguments in [&RUN[..], &RUN[..4], &["run", "departures.sql", "--checkpoint-dir", "c", "--fresh"]] {
        let refused = home.ruslo(arguments).expect(2);
        let expected = format!("c/manifests/{name}: written by a newer Ruslo (format 99; this one reads up to ");
        assert!(refused.error().starts_with(&expected), "{}", refused.err);
        assert!(refused.error().contains("go on with that one, or give this one another --checkpoint-dir"));
    }
    let listed = home.ruslo(&["checkpoint", "list", "c"]).expect(0).out;
    assert!(listed.lines().last().unwrap().contains("newer"), "{listed}");
    home.ruslo(&["checkpoint", "verify", "c"]).expect(2);
    fs::write(&newest, original).unwrap();
    home.ruslo(&RUN).expect(0);
    check(&home);
}

#[test]
fn manifests_without_their_runs_are_damage_that_names_the_file() {
    let home = killed();
    let kept = home.path("kept");
    fs::rename(home.path("c/runs"), &kept).unwrap();
    let refused = home.ruslo(&RUN).expect(5);
    let error = refused.error();
    assert!(error.starts_with("no checkpoint here is whole; bring the damaged file back"), "{error}");
    assert!(error.contains("start over with --fresh; the newest: c/runs/"), "{error}");
    assert!(error.ends_with(": the file is missing"), "{error}");
    fs::remove_dir(home.path("c/runs")).unwrap();
    fs::rename(&kept, home.path("c/runs")).unwrap();
    home.ruslo(&RUN).expect(0);
    check(&home);
}

#[test]
fn runs_without_their_manifests_are_no_fresh_start() {
    let home = killed();
    let kept = home.path("kept");
    fs::rename(home.path("c/manifests"), &kept).unwrap();
    for arguments in [&RUN[..], &RUN[..4]] {
        let refused = home.ruslo(arguments).expect(5);
        let error = refused.error();
        assert!(error.starts_with("c/manifests: no manifest is here, but runs of checkpoints are"), "{error}");
        assert!(error.ends_with("bring the manifests back, or start over with --fresh"), "{error}");
    }
    assert!(!runs(&home).is_empty(), "nothing was removed");
    fs::remove_dir(home.path("c/manifests")).unwrap();
    fs::rename(&kept, home.path("c/manifests")).unwrap();
    home.ruslo(&RUN).expect(0);
    check(&home);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let home = killed();
    home.write("letters/a.txt", "dear");
    home.write("file", "text");
    let run = |folder: &str| home.ruslo(&["run", "departures.sql", "--checkpoint-dir", folder]).expect(2);
    let refused = run("letters");
    let expected = "letters: this is no checkpoint folder: it has 'a.txt' in it, and no checkpoints; name an empty or a \
                    new folder";
    assert_eq!(refused.error(), expected);
    assert_eq!(fs::read_dir(home.path("letters")).unwrap().count(), 1);
    assert!(run("file").error().ends_with("file: this is a file, not a folder"), "{}", run("file").err);
}

#[test]
fn a_read_only_folder_is_said_to_be_one() {
    let home = killed();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).current_dir(home.path("")).output();
        done.is_ok_and(|done| done.status.success())
    };
    if !mount(&["--bind", "c", "c"]) {
        eprintln!("skipped: this user may not mount a file system");
        return;
    }
    let is_read_only = mount(&["-o", "remount,ro,bind", "c"]);
    let refused = home.ruslo(&RUN);
    let listed = home.ruslo(&["checkpoint", "list", "c"]);
    Command::new("umount").arg(home.path("c")).status().unwrap();
    assert!(is_read_only, "{refused:?}");
    let refused = refused.expect(4);
    assert!(refused.error().starts_with("c/"), "{}", refused.err);
    let mend = "the file system is read-only; make it writable, or name another folder";
    assert!(refused.error().ends_with(mend), "{}", refused.err);
    assert!(listed.expect(0).out.contains("resumable"), "looking needs no writing");
    home.ruslo(&RUN).expect(0);
    check(&home);
}
