//! What a job says to people while it runs, on standard error: a line a checkpoint, a progress bar, and
//! the closing table.
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal, Write, stderr},
    sync::{OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::snapshot::{JobMetrics, Latency, OperatorMetrics};
use crate::{api::handle::CheckpointReport, plan::NodeKind, runtime::supervise::Shared, settings::ReportSettings};
use tidegate_checkpoint::{error::Error, ids::Epoch};

/// What is to be said.
pub(crate) struct Reporting {
    settings: ReportSettings,
    bar: OnceLock<ProgressBar>,
}

impl Reporting {
    pub(crate) fn new(settings: &ReportSettings) -> Self {
        Self { settings: settings.clone(), bar: OnceLock::new() }
    }

    fn line(&self, text: &str) {
        match self.bar.get() {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    pub(crate) fn checkpoint(&self, shared: &Shared, report: &CheckpointReport) {
        self.progress(shared);
        if self.settings.checkpoints {
            let metrics = JobMetrics::of(shared);
            let read: u64 = metrics.operators.iter().filter(|o| o.operator == "source").map(|o| o.records_out).sum();
            self.line(&format!(
                "checkpoint {} committed in {} ms · state {} · {read} records read",
                report.epoch,
                report.duration_ms,
                bytes(report.bytes as f64),
            ));
        }
    }

    pub(crate) fn abandoned(&self, epoch: Epoch, reason: &str) {
        if self.settings.checkpoints {
            self.line(&format!("checkpoint {epoch} abandoned, the job goes on: {reason}"));
        }
    }

    /// An attempt has failed and another begins: whoever watches anything must not think that the job hangs.
    pub(crate) fn restarting(&self, error: &Error, delay: Duration) {
        let ReportSettings { checkpoints, progress, summary } = self.settings;
        if checkpoints || progress || summary {
            self.line(&format!("the attempt has failed, the next one begins in {:.1} s: {error}", delay.as_secs_f64()));
        }
    }

    /// Moves the bar, where there is a terminal and the input has a length.
    pub(crate) fn progress(&self, shared: &Shared) {
        if !self.settings.progress || !stderr().is_terminal() {
            return;
        }
        let sources: Vec<_> =
            shared.graph.nodes().into_iter().filter(|n| n.kind == NodeKind::Source).map(|n| n.id).collect();
        let (mut read, mut total) = (0, 0);
        for ((node, _), stats) in shared.stats().0.all() {
            if sources.contains(&node) {
                read += stats.progress.load(Relaxed);
                total += stats.progress_total.load(Relaxed);
            }
        }
        if total == 0 {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {percent}% · {elapsed} · {eta} left")
            {
                bar.set_style(style);
            }
            bar.set_prefix(shared.job.to_string());
            bar
        });
        bar.set_length(total);
        bar.set_position(read.min(total));
    }

    /// Ends the bar and prints the closing table.
    pub(crate) fn finished(&self, shared: &Shared) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
        // A job that never began has nothing to sum up.
        if self.settings.summary && !shared.stats().0.all().is_empty() {
            write_line(&JobMetrics::of(shared).to_string());
        }
    }
}

/// Standard error that cannot be written is nobody's to report to.
fn write_line(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

fn bytes(n: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut n = n;
    let mut unit = 0;
    while n >= 1000.0 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n:.0} B") } else { format!("{n:.1} {}", units[unit]) }
}

fn count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.1} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn percent(part: Option<f64>) -> String {
    part.map_or_else(String::new, |p| format!("{:.0}%", p * 100.0))
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// A table of operators, and a line on checkpoints; with `{:#}` also every figure that parts of the job have of
/// themselves, one a line, as Prometheus writes them.
impl std::fmt::Display for JobMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.operators.iter().map(|o| o.name.chars().count()).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "{:width$} {:>10} {:>10} {:>10} {:>11} {:>5} {:>5} {:>6} {:>9} {:>9} {:>9}",
            "operator", "in", "out", "records/s", "capacity/s", "busy", "idle", "backpr", "p50", "p99", "max"
        )?;
        for o in &self.operators {
            // No longer than its figures: what follows is blank, and would only wrap.
            writeln!(f, "{}", line(o, width).trim_end())?;
        }
        let c = &self.checkpoints;
        write!(f, "{:.2} s · {} checkpoint{}", self.elapsed.as_secs_f64(), c.completed, plural(c.completed))?;
        if c.completed > 0 {
            let (last, longest, state) = (c.last_duration_ms, c.max_duration_ms, bytes(c.last_bytes as f64));
            write!(f, ", last {last} ms, longest {longest} ms, state {state}")?;
        }
        if let Some(commit) = c.commit {
            write!(f, " · commits p50 {}, p99 {}, max {}", ms(commit.p50), ms(commit.p99), ms(commit.max))?;
        }
        if c.abandoned > 0 {
            write!(f, " · {} abandoned", c.abandoned)?;
        }
        if f.alternate() {
            let of_operators = self.operators.iter().flat_map(|o| o.figures.iter().map(|f| (Some(&o.name), f)));
            for (operator, figure) in of_operators.chain(self.figures.iter().map(|f| (None, f))) {
                let operator = operator.map(|name| ("operator", name));
                let labels = operator.into_iter().chain(figure.labels.iter().map(|(label, value)| (*label, value)));
                let labels: Vec<_> = labels.map(|(label, value)| format!("{label}={value:?}")).collect();
                write!(f, "\n{}{{{}}} {}", figure.name, labels.join(","), figure.value.as_f64())?;
            }
        }
        Ok(())
    }
}

fn line(o: &OperatorMetrics, width: usize) -> String {
    let latency = |which: fn(&Latency) -> Duration| o.latency.as_ref().map_or_else(String::new, |l| ms(which(l)));
    let mut line = format!(
        "{:width$} {:>10} {:>10} {:>10} {:>11} {:>5} {:>5} {:>6} {:>9} {:>9} {:>9}",
        o.name,
        o.records_in,
        o.records_out,
        count(o.records_per_second),
        o.capacity_per_second.map_or_else(String::new, count),
        percent(o.busy),
        percent(o.idle),
        percent(o.backpressured),
        latency(|l| l.p50),
        latency(|l| l.p99),
        latency(|l| l.max),
    );
    let mut more = |text: String| {
        line.push_str(" · ");
        line.push_str(&text);
    };
    for (what, n) in [
        ("filtered", o.filtered),
        ("late", o.late),
        ("skipped", o.skipped),
        (if o.dead_letters == 1 { "dead letter" } else { "dead letters" }, o.dead_letters),
        ("far future", o.far_future),
    ] {
        if n > 0 {
            more(format!("{n} {what}"));
        }
    }
    if o.bytes_in + o.bytes_out > 0 {
        more(format!("{}, {}/s", bytes((o.bytes_in + o.bytes_out) as f64), bytes(o.bytes_per_second)));
    }
    line
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}
