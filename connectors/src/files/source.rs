//! Files of a directory (or one) as a source: each file is a split.
//!
//! A watched directory must be given whole files: write them elsewhere, or under a name that begins with a
//! dot, and move them in. Files that have been read are remembered by name.
use futures::future::{BoxFuture, ready};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};
use tidegate_core::{
    Error, Result,
    connect::{Source, Split},
};

use super::{
    format::{Csv, Format, JsonLines, Text},
    reading::FileReader,
};

/// Reads files: `.gz` and `.zst` are decompressed.
///
/// ```
/// use tidegate_connectors::FileSource;
/// #[derive(Clone, serde::Deserialize)]
/// struct Click { user: String, at_ms: i64 }
/// let one = FileSource::csv::<Click>("clicks.csv.gz");
/// let all = FileSource::json_lines::<Click>("incoming/*.jsonl").watch(std::time::Duration::from_secs(5));
/// # let _ = (one, all);
/// ```
#[derive(Clone, Debug)]
pub struct FileSource<F> {
    format: F,
    path: PathBuf,
    watch: Option<Duration>,
    rate: Option<f64>,
}

impl FileSource<Text> {
    /// Lines of text. The path is a file, a directory, or a directory and a name with one `*`.
    pub fn text(path: impl Into<PathBuf>) -> Self {
        Self::with(Text, path)
    }
}
impl FileSource<()> {
    /// CSV whose first row names the fields of `T`. A row with more or fewer columns is undecodable.
    pub fn csv<T: DeserializeOwned + Send + 'static>(path: impl Into<PathBuf>) -> FileSource<Csv<T>> {
        FileSource::with(Csv(PhantomData), path)
    }
    /// JSON, a value a line.
    pub fn json_lines<T: DeserializeOwned + Send + 'static>(path: impl Into<PathBuf>) -> FileSource<JsonLines<T>> {
        FileSource::with(JsonLines(PhantomData), path)
    }
}

impl<F> FileSource<F> {
    fn with(format: F, path: impl Into<PathBuf>) -> Self {
        Self { format, path: path.into(), watch: None, rate: None }
    }
    /// Looks for new files at this interval; the source then never ends by itself. A job with the trigger `available-now`
    /// or `once` ends all the same, behind the files that are there: but not as if no more would come, so that windows
    /// that are still open wait for the next start.
    pub fn watch(mut self, interval: Duration) -> Self {
        self.watch = Some(interval.max(Duration::from_millis(1)));
        self
    }
    /// Limits the rate at which each file is read, in records a second.
    pub fn rate(mut self, records_per_second: f64) -> Self {
        self.rate = (records_per_second > 0.0).then_some(records_per_second);
        self
    }

    /// The directory, and the pattern of names in it; `None` for a single file.
    fn directory(&self) -> Option<(PathBuf, String)> {
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains('*') {
            let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return Some((directory.to_owned(), name));
        }
        self.path.is_dir().then(|| (self.path.clone(), "*".to_owned()))
    }

    fn path_of(&self, id: &str) -> PathBuf {
        self.directory().map_or_else(|| self.path.clone(), |(directory, _)| directory.join(id))
    }

    fn list(&self) -> Result<Vec<Split>> {
        let Some((directory, pattern)) = self.directory() else {
            let missing = |e| {
                Error::config(format!("the input file {} cannot be read", self.path.display()))
                    .caused_by(e)
                    .hint("check the path")
            };
            let metadata = std::fs::metadata(&self.path).map_err(missing)?;
            let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok(vec![Split { id: name, length: Some(metadata.len()) }]);
        };
        let unreadable = |e| {
            Error::config(format!("the input directory {} cannot be read", directory.display()))
                .caused_by(e)
                .hint("check the path")
        };
        let mut splits = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A file that vanishes while listing is not there.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && !name.starts_with('.') && matches(&pattern, &name) {
                splits.push(Split { id: name, length: Some(metadata.len()) });
            }
        }
        if splits.is_empty() && self.watch.is_none() {
            return Err(Error::config(format!("there is no input file {} in {}", pattern, directory.display()))
                .hint("check the path, or wait for files with .watch(interval)"));
        }
        splits.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(splits)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((front, back)) => {
            name.len() >= front.len() + back.len() && name.starts_with(front) && name.ends_with(back)
        }
        None => pattern == name,
    }
}

impl<F: Format> Source for FileSource<F> {
    type Item = F::Item;
    type Reader = FileReader<F::Item>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        Box::pin(ready(self.list()))
    }
    fn discovery_interval(&self) -> Option<Duration> {
        self.watch
    }
    fn can_end(&self) -> Result<()> {
        Ok(())
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<FileReader<F::Item>>> {
        let path = self.path_of(&split.id);
        Box::pin(ready(FileReader::open(self.format.clone(), split.id, path, position.as_ref(), self.rate)))
    }
}
