//! What a part of a job says of itself to those who watch it: named figures with labels.
//!
//! They are asked for and never handed in: whoever has something to say keeps counters of its own, as cheap as it
//! likes, and makes figures of them when somebody looks ([`CommitPoint::figures`](crate::commit::CommitPoint)). So
//! nothing is registered, nothing has to be removed, and a figure is gone when that which it speaks of is. The
//! hard case is how many there are: one that has a label for each partition is listed by each exporter for each of
//! them. What a label can be must have a bound.

/// One figure, as of the moment at which it was asked for.
///
/// ```
/// use tidegate_checkpoint::figure::Figure;
/// let figure = Figure::count("tidegate_split_records_total", 17).with("split", "orders/3");
/// assert_eq!((figure.label("split"), figure.value.as_f64()), (Some("orders/3"), 17.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is called by exporters, in the manner of Prometheus: unit last, `_total` behind what only grows.
    pub name: &'static str,
    /// What tells it from others of its name. Job and operator are not among them: the engine adds those.
    pub labels: Vec<(&'static str, String)>,
    /// What it is.
    pub value: FigureValue,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FigureValue {
    /// So many so far, in this attempt.
    Count(u64),
    /// So much now.
    Gauge(f64),
}

impl FigureValue {
    /// As a number, of either kind.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Count(n) => n as f64,
            Self::Gauge(x) => x,
        }
    }
}

impl Figure {
    /// Something that only grows.
    pub fn count(name: &'static str, n: u64) -> Self {
        Self { name, labels: Vec::new(), value: FigureValue::Count(n) }
    }
    /// Something that rises and falls.
    pub fn gauge(name: &'static str, x: f64) -> Self {
        Self { name, labels: Vec::new(), value: FigureValue::Gauge(x) }
    }
    /// With one more label.
    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
    /// What a label says.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}
