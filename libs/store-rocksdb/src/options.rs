//! How RocksDB is set up.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Table files not yet sorted into levels at which writes stop.
const LEVEL_ZERO_STOP: i32 = 32;
/// Bytes that wait to be compacted at which writes stop.
const COMPACTION_STOP: usize = 64 << 30;

/// Options that the bindings can't set but by their text.
/// - What a log brings back stays in memory: opening after a crash writes no table files.
/// - The manifest holds the identity; a file of its own for it costs two syncs when a store is made.
/// - A failed write is not tried again behind our back: it ends the store. (A full disk is another
///   matter, and not ruled by this.)
const BY_NAME: &str =
    "avoid_flush_during_recovery=true;write_identity_file=false;max_bgerror_resume_count=0";

/// Limits that all stores of a [`RocksDisk`](crate::RocksDisk) keep to.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Bytes of blocks that all stores together keep in memory.
    pub block_cache: usize,
    /// Bytes of a table's newest rows that are kept in memory before they are written out.
    pub write_buffer: usize,
    /// Bytes of write-ahead log that a store keeps at most, and so has to read when it is opened.
    pub log_limit: u64,
    /// Files that one store keeps open.
    pub open_files: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions {
            block_cache: 32 * MIB,
            write_buffer: 16 * MIB,
            log_limit: 64 * MIB as u64,
            open_files: 256,
        }
    }
}

/// The limits and what stores share.
pub(crate) struct Tuning {
    options: RocksOptions,
    cache: Cache,
}

impl Tuning {
    pub(crate) fn new(options: RocksOptions) -> Self {
        let cache = Cache::new_lru_cache(options.block_cache);
        Tuning { options, cache }
    }

    /// The options of a store and of each of its tables.
    ///
    /// # Errors
    /// When RocksDB does not know an option, which another version of it may not.
    pub(crate) fn rocksdb(&self) -> Result<Options, rocksdb::Error> {
        let mut options = Options::default().get_options_from_string(BY_NAME)?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        self.durability(&mut options);
        self.memory(&mut options);
        quiet(&mut options);
        Ok(options)
    }

    fn durability(&self, options: &mut Options) {
        options.set_paranoid_checks(true);
        // A record that was cut off at the end of the log is dropped; one that is damaged with more
        // after it is reported. The default (point in time) would drop all that follows, in silence.
        // It rules out recycled log files (RocksDB switches them off in this mode, for it could not
        // tell old records from damage), which costs an update of the file's length with each sync.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        // A log file that is missing, or shorter than when it was closed, is reported too.
        options.set_track_and_verify_wals_in_manifest(true);
        // fdatasync rather than fsync.
        options.set_use_fsync(false);
        options.set_max_total_wal_size(self.options.log_limit);
        // One thread writes to a store (see `writer`), so nothing is gained by what lets several
        // of them share the work.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
    }

    fn memory(&self, options: &mut Options) {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_block_size(16 * KIB);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(5);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(self.options.write_buffer);
        options.set_max_write_buffer_number(2);
        options.set_db_write_buffer_size(2 * self.options.write_buffer);
        options.set_arena_block_size(256 * KIB);
        options.set_max_open_files(self.options.open_files);
        options.set_max_background_jobs(2);
        // Too far behind, writes stop until it has caught up; they are not slowed down before. The
        // writer's attempts would each count against the rate that a slowdown allows (see `writer`).
        options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_STOP);
        options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_STOP);
        options.set_soft_pending_compaction_bytes_limit(COMPACTION_STOP);
        options.set_hard_pending_compaction_bytes_limit(COMPACTION_STOP);
        // The newest levels are rewritten soon; compressing them is wasted work.
        let (plain, packed) = (DBCompressionType::None, DBCompressionType::Lz4);
        options.set_compression_per_level(&[plain, plain, packed, packed, packed, packed, packed]);
    }
}

/// No periodic work on an idle store, and few and small files of RocksDB's own log.
fn quiet(options: &mut Options) {
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_skip_stats_update_on_db_open(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_max_manifest_file_size(4 * MIB);
}
