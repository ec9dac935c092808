package dev.millrace.topology;

import dev.millrace.topology.Setting.Unit;
import java.util.ArrayList;
import java.util.List;

/** Every key of the worker's own, in the order in which they are documented. */
public final class Settings {
  private static final List<Setting> ALL_OWN = new ArrayList<>();

  static final Setting MODEL_PATH =
      own("model.path", "", "Folder of the Hugging Face checkpoint to serve.");
  static final Setting MODEL_NAME =
      own(
          "model.name",
          "",
          "Name that prompts ask for and completions carry; empty: the folder's name.");

  static final Setting PROMPTS =
      own("topics.prompts", "millrace.prompts", "Topic of the prompts to answer.");
  static final Setting CANCELS =
      own(
          "topics.cancels",
          "millrace.cancels",
          "Topic of cancel events; as many partitions as the prompts' topic.");
  static final Setting COMPLETIONS =
      own("topics.completions", "millrace.completions", "Topic of the answers.");
  static final Setting TOOL_CALLS =
      own("topics.tool.calls", "millrace.tool-calls", "Topic of the tool calls, one event a call.");
  static final Setting CHUNKS =
      own("topics.chunks", "millrace.chunks", "Topic of the pieces of streamed answers.");
  static final Setting DEAD_LETTERS =
      own(
          "topics.dead.letters",
          "millrace.dead-letters",
          "Topic of prompts that cannot be answered, as they came, with the reason in headers.");
  static final Setting REPLY_TOPICS =
      own(
          "reply.topics",
          "(?i).*replies",
          "Regular expression of the topics that prompts may name in kafka_replyTopic; empty:"
              + " none.");
  static final Setting CLOUDEVENTS_SOURCE =
      own(
          "cloudevents.source",
          "",
          "The ce_source of completions, tool calls, chunks and replies, a URI; empty: they carry"
              + " no CloudEvents headers.");
  static final Setting PARTITIONS =
      own(
          "topics.partitions",
          "6",
          Unit.COUNT,
          "Partitions of the topics that topics create makes.");
  static final Setting REPLICATION =
      own(
          "topics.replication.factor",
          "-1",
          Unit.COUNT,
          "Replicas of those topics and of the stores' changelogs; -1: the broker's default.");

  static final Setting WINDOW_PROMPTS =
      own(
          "window.prompts",
          "512",
          Unit.PROMPTS,
          "Most prompts that the engine holds before the worker stops reading more.");
  static final Setting WINDOW_TOKENS =
      own(
          "window.tokens",
          "0",
          Unit.TOKENS,
          "Most prompt tokens that wait in the engine before the worker stops reading more; 0: no"
              + " such limit.");
  static final Setting WINDOW_BYTES =
      own(
          "window.bytes",
          "0",
          Unit.BYTES,
          "Most bytes of prompts that the worker keeps before it stops reading more; 0: a sixteenth"
              + " of the largest heap, since a prompt is held in several forms.");
  static final Setting SAVE_TOKENS =
      own(
          "progress.save.tokens",
          "16",
          Unit.TOKENS,
          "A prompt's generated tokens are saved when this many are unsaved.");
  static final Setting SAVE_INTERVAL =
      own("progress.save.interval", "2s", Unit.TIME, "Or when the oldest unsaved one is this old.");
  static final Setting SAVE_BYTES =
      own(
          "progress.save.bytes.per.second",
          "8m",
          Unit.BYTES,
          "Most bytes of generated tokens that the worker saves a second; what is above it is saved"
              + " later, and generated later where progress.ahead.tokens says so.");
  static final Setting SAVE_AHEAD =
      own(
          "progress.ahead.tokens",
          "64",
          Unit.TOKENS,
          "Most generated tokens of a prompt that a crash costs: where saves are held up its"
              + " generation waits. 0: any number.");
  static final Setting CHUNKS_INTERVAL =
      own(
          "chunks.interval",
          "50ms",
          Unit.TIME,
          "Least time between two chunks of an answer; the first goes out at once. 0ms: a chunk for"
              + " each step of the engine.");
  static final Setting DEDUP_RETENTION =
      own(
          "dedup.retention",
          "1h",
          Unit.TIME,
          "How long the id of an answered prompt is remembered: a second prompt with it is not"
              + " answered again.");
  static final Setting DEDUP_IDS =
      own(
          "dedup.max.ids",
          "200000",
          Unit.COUNT,
          "Most ids remembered for one partition, at about 100 bytes of heap each; oldest go first."
              + " More prompts in dedup.retention than that (for 200000 in 1h: above 55 a second of"
              + " a partition) are remembered for a shorter time.");
  static final Setting MAX_BYTES =
      own(
          "max.prompt.bytes",
          "32m",
          Unit.BYTES,
          "Largest record, prompt or answer: drives the topics', the producer's and the fetch"
              + " limits.");
  static final Setting MAX_TOKENS =
      own(
          "max.tokens",
          "1024",
          Unit.TOKENS,
          "Most tokens to generate where a prompt does not say.");
  static final Setting TEMPERATURE =
      own(
          "sampling.temperature",
          "",
          Unit.NUMBER,
          "Temperature where a prompt does not say; empty: the model's own default.");
  static final Setting TOP_P =
      own(
          "sampling.top.p",
          "",
          Unit.NUMBER,
          "top_p where a prompt does not say; empty: the model's own.");
  static final Setting ATTEMPTS =
      own(
          "engine.attempts",
          "3",
          Unit.COUNT,
          "How often a prompt is tried when the engine fails it, before it is a dead letter.");
  static final Setting BACKOFF =
      own(
          "engine.backoff",
          "500ms",
          Unit.TIME,
          "Pause before the second try; doubles with each further one.");
  static final Setting CRASH_ATTEMPTS =
      own(
          "max.crash.attempts",
          "3",
          Unit.COUNT,
          "How often the worker may crash while a prompt runs alone, before the prompt is a dead"
              + " letter. It runs alone after two crashes at the same point of it.");
  static final Setting LOW_SHARE =
      own(
          "engine.low.priority.share",
          "0.1",
          Unit.NUMBER,
          "Share of the tokens that goes to waiting prompts of lower priorities while some of a"
              + " higher one wait, oldest first, so that none waits for ever; 0: none.");
  static final Setting SEQUENCES =
      own(
          "engine.max.sequences",
          "256",
          Unit.COUNT,
          "Most sequences that the engine runs at once.");
  static final Setting TOKEN_BUDGET =
      own("engine.token.budget", "2048", Unit.TOKENS, "Most tokens of one step of the engine.");
  static final Setting MAX_CHUNK =
      own(
          "engine.max.chunk",
          "1024",
          Unit.TOKENS,
          "Most tokens of one prompt in a step while others wait.");
  static final Setting KV_BLOCKS =
      own(
          "engine.kv.blocks",
          "0",
          Unit.COUNT,
          "Blocks of keys and values; 0: room for eight of the longest prompts, at most a quarter"
              + " of the memory.");
  static final Setting PREFIX_CACHE =
      own(
          "engine.prefix.cache",
          "true",
          Unit.FLAG,
          "Whether prompts share the KV blocks of equal beginnings.");
  static final Setting DEVICE =
      own(
          "engine.device",
          "cpu",
          "What computes: cpu, or cuda:N for the N-th GPU of the machine; worker --gpus sets it for"
              + " each of its processes.");
  static final Setting DTYPE =
      own(
          "engine.dtype",
          "auto",
          "Format of linear layers: auto (as the checkpoint has them), bf16 (FP8 is widened; GPUs"
              + " only), or fp8 (e4m3 weights and inputs, made from the checkpoint if it has"
              + " others; a GPU below compute capability 8.9 has no units for it and gains"
              + " nothing).");
  static final Setting KV_DTYPE =
      own(
          "engine.kv.dtype",
          "auto",
          "Format of keys and values: auto (on a GPU what the checkpoint says, on the CPU f32),"
              + " bf16 or fp8 (GPUs only), f32 (CPU only).");
  static final Setting CUDA_GRAPHS =
      own(
          "engine.cuda.graphs",
          "true",
          Unit.FLAG,
          "Whether a GPU is given steps in which every sequence gets one token as CUDA graphs,"
              + " which are recorded at the start; otherwise kernel by kernel.");
  static final Setting INVARIANT =
      own(
          "engine.batch.invariant",
          "false",
          Unit.FLAG,
          "Whether an answer on a GPU depends on nothing but its prompt and how it is sampled, to"
              + " the byte, whatever else runs, however a prompt is cut, and where it is resumed;"
              + " long contexts then take longer. The CPU does it always.");
  static final Setting E4M3_PREFILL =
      own(
          "engine.prefill.e4m3",
          "true",
          Unit.FLAG,
          "Whether attention over prompts is multiplied in e4m3 where keys and values are FP8, on"
              + " Hopper GPUs, with heads of 128 numbers and without engine.batch.invariant: long"
              + " prompts take less time; otherwise in halves, which round less.");
  static final Setting TIMINGS =
      own(
          "engine.timings.dir",
          "",
          Unit.TEXT,
          "Folder that keeps which algorithms multiply fastest on a GPU, so that a later start need"
              + " not time them; empty: engine-timings in kafka.state.dir; none: they are not"
              + " kept.");
  static final Setting THREADS =
      own("engine.threads", "0", Unit.COUNT, "Threads of the CPU backend; 0: one for each core.");

  static final Setting REGISTRY =
      own("registry.url", "", "Address of the schema registry (Confluent's interface).");
  static final Setting SERDE =
      own(
          "serde.class",
          "dev.millrace.schemas.AvroSerde",
          "Class that reads and writes events; Confluent's SpecificAvroSerde drops in.");
  static final Setting DRAIN_GRACE =
      own(
          "drain.grace",
          "2s",
          Unit.TIME,
          "How long a worker that is told to stop goes on with the prompts it has begun. The others"
              + " that it has been assigned wait that long; what is not done by then goes on"
              + " elsewhere, with its tokens.");
  static final Setting STATUS_HOST =
      own("status.host", "127.0.0.1", "Address of the status server (/metrics, /health/...).");
  static final Setting STATUS_PORT =
      own("status.port", "9478", Unit.COUNT, "Its port; 0: any free one; -1: no status server.");

  static final Setting STUCK_AFTER =
      own(
          "health.stuck.after",
          "2m",
          Unit.TIME,
          "/health/live fails when the engine takes no step for so long while it has prompts, also"
              + " where all of them wait for a commit, or a stream thread does not poll.");
  static final Setting LOG_FORMAT =
      own(
          "log.format",
          "plain",
          "How a worker's log lines look: plain, or json for one object each.");

  /** Every key of the worker's own. */
  public static final List<Setting> ALL = List.copyOf(ALL_OWN);

  private Settings() {}

  private static Setting own(String name, String standard, String doc) {
    return own(name, standard, Unit.TEXT, doc);
  }

  private static Setting own(String name, String standard, Unit unit, String doc) {
    Setting setting = new Setting(name, standard, unit, doc);
    ALL_OWN.add(setting);
    return setting;
  }
}
