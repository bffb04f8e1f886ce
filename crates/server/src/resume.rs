//! The command that goes on from where a job stopped: the same words, with `--resume`.

use std::path::Path;

use crate::args::{Output, Run};
use crate::text::quoted;

/// What to type. `program` is how this command was called.
pub(crate) fn command(program: &str, run: &Run) -> String {
    let mut words = vec![program.to_owned(), "run".to_owned()];
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    let path = |path: &Path| path.display().to_string();
    if let Some(sql) = &run.sql.execute {
        option("-e", sql);
    }
    if let Some(subtasks) = &run.sql.parallelism {
        option("--parallelism", subtasks);
    }
    for (key, value) in &run.sql.settings {
        option("--set", &format!("{key}={value}"));
    }
    if let Some(folder) = &run.checkpoint_dir {
        option("--checkpoint-dir", &path(folder));
    }
    if let Some(interval) = &run.checkpoint_interval {
        option("--checkpoint-interval", interval);
    }
    if run.output == Output::Json {
        option("--output", "json");
    }
    words.push("--resume".to_owned());
    if let Some(file) = &run.sql.file {
        words.insert(2, path(file));
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn resumed(arguments: &[&str]) -> String {
        match Cli::try_parse_from(["ruslo", "run"].iter().chain(arguments)).unwrap().command {
            Command::Run(run) => command("ruslo", &run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn says_everything_again_and_how_to_start_anew() {
        let given = ["a b.sql", "--fresh", "--parallelism", "2", "--checkpoint-dir", "c", "--output", "json"];
        let expected = "ruslo run 'a b.sql' --parallelism 2 --checkpoint-dir c --output json --resume";
        assert_eq!(resumed(&given), expected);
        let given = ["-e", "SELECT 1", "--set", "a=b c", "--checkpoint-interval", "1s", "--resume"];
        assert_eq!(resumed(&given), "ruslo run -e 'SELECT 1' --set 'a=b c' --checkpoint-interval 1s --resume");
    }
}
