//! The keys of Kafka's requests, by which a [`Proxy`](super::Proxy) tells them apart. They are never changed, only
//! added to; here are those that a producer, a consumer or an admin client of this project sends.

/// Records from a producer.
pub const PRODUCE: i16 = 0;
/// Records for a consumer.
pub const FETCH: i16 = 1;
/// Earliest and latest offsets, and offsets by time.
pub const LIST_OFFSETS: i16 = 2;
/// Topics, partitions and their leaders.
pub const METADATA: i16 = 3;
/// Offsets of a consumer group, outside transactions.
pub const OFFSET_COMMIT: i16 = 8;
/// The offsets a consumer group has committed.
pub const OFFSET_FETCH: i16 = 9;
/// Who coordinates a group or a transaction.
pub const FIND_COORDINATOR: i16 = 10;
/// The first request of every connection: which versions the broker speaks.
pub const API_VERSIONS: i16 = 18;
/// New topics.
pub const CREATE_TOPICS: i16 = 19;
/// The identity of a producer; it fences who had the transactional id before.
pub const INIT_PRODUCER_ID: i16 = 22;
/// Announces the partitions of a transaction.
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
/// Announces a consumer group of a transaction.
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
/// Commits or aborts: the reply that must not be believed lost or won.
pub const END_TXN: i16 = 26;
/// Offsets of a consumer group, within a transaction.
pub const TXN_OFFSET_COMMIT: i16 = 28;
/// The state of transactions, by id.
pub const DESCRIBE_TRANSACTIONS: i16 = 65;
/// All transactions.
pub const LIST_TRANSACTIONS: i16 = 66;
