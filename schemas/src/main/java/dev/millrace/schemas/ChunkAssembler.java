package dev.millrace.schemas;

import java.time.Duration;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.LongSupplier;

/**
 * Rebuilds streamed answers from their chunks, for a reader of the chunks' and the completions'
 * topics. Chunks may come twice, an attempt may be lost and begin anew under a higher number, and a
 * completion may come before the last chunks, since it is on another topic: this class says of each
 * event what to append to the text shown so far, and whether to throw that away first. Whoever does
 * what it says has at the end what the completion says.
 *
 * <p>Its memory is bounded: text beyond the limits is forgotten, oldest first, and then shown again
 * whole by the completion. Not safe for several threads.
 */
public final class ChunkAssembler {
  private static final Limits STANDARD = new Limits(10_000, 64L << 20, Duration.ofMinutes(10));

  private final Limits limits;
  private final LongSupplier nanos;

  /** By prompt id, least recently used first. */
  private final Map<String, Text> texts = new LinkedHashMap<>(16, 0.75f, true);

  private long characters;
  private long forgotten;

  /**
   * How much is kept.
   *
   * @param prompts most answers, those that have ended for a while included
   * @param characters most characters of their texts together
   * @param idle how long an answer is kept of which nothing comes
   */
  public record Limits(int prompts, long characters, Duration idle) {
    public Limits {
      if (prompts < 1 || characters < 1 || !idle.isPositive()) {
        throw new IllegalArgumentException(
            "each limit must be above zero: %d prompts, %d characters, %s"
                .formatted(prompts, characters, idle));
      }
    }
  }

  /** What an event means for the text that is shown. */
  public enum Kind {
    /** There is more text. */
    MORE,
    /**
     * Nothing to do: the chunk came before, or belongs to an attempt that is lost, or its answer
     * has ended, or it follows a gap.
     */
    NOTHING,
    /**
     * A chunk is missing, so what is shown is a beginning; the completion, or an attempt that
     * begins anew, brings the rest.
     */
    GAP,
    /** The answer has ended; together with what is shown this is all of it. */
    END
  }

  /**
   * What to do about an event.
   *
   * @param attempt that the text shown now comes from
   * @param restart throw away what was shown of this answer, if anything was, before all else
   * @param content to append to the answer
   * @param reasoning to append to the reasoning
   */
  public record Update(
      String promptId, Kind kind, int attempt, boolean restart, String content, String reasoning) {}

  /** What is known of one answer. */
  private static final class Text {
    final StringBuilder content = new StringBuilder();
    final StringBuilder reasoning = new StringBuilder();
    int attempt = -1;
    int next;
    boolean gap;

    /** By its completion: there is nothing more to say of it. */
    boolean ended;

    /** By a dead letter: replayed it may have a completion all the same. */
    boolean dead;

    long usedAt;

    int length() {
      return content.length() + reasoning.length();
    }

    void clear() {
      content.setLength(0);
      reasoning.setLength(0);
      // A forgotten text may have been a long one.
      content.trimToSize();
      reasoning.trimToSize();
    }
  }

  /** Keeps up to 10,000 answers and 64 million characters, each for ten minutes. */
  public ChunkAssembler() {
    this(STANDARD, System::nanoTime);
  }

  /**
   * With limits of one's own.
   *
   * @param nanos a clock as {@link System#nanoTime}
   */
  public ChunkAssembler(Limits limits, LongSupplier nanos) {
    this.limits = limits;
    this.nanos = nanos;
  }

  /** Takes a chunk. */
  public Update add(ChunkEvent chunk) {
    String id = chunk.getPromptId();
    Text text = use(id);
    if (text.dead && text.attempt < 0) {
      // The dead letter came before its chunks: this is the attempt that it ended.
      text.attempt = chunk.getAttempt();
    }
    if (text.ended
        || chunk.getAttempt() < text.attempt
        || (text.dead && chunk.getAttempt() == text.attempt)) {
      return nothing(id, text);
    }
    boolean restart = chunk.getAttempt() > text.attempt;
    if (restart) {
      drop(text);
      text.attempt = chunk.getAttempt();
      text.next = 0;
      text.gap = false;
      text.dead = false;
    }
    if (text.gap || chunk.getSequence() < text.next) {
      return nothing(id, text);
    }
    if (chunk.getSequence() > text.next) {
      drop(text);
      text.gap = true;
      return new Update(id, Kind.GAP, text.attempt, restart, "", "");
    }
    text.next++;
    text.content.append(chunk.getContent());
    text.reasoning.append(chunk.getReasoning());
    characters += (long) chunk.getContent().length() + chunk.getReasoning().length();
    Update update =
        new Update(id, Kind.MORE, text.attempt, restart, chunk.getContent(), chunk.getReasoning());
    forgetTexts();
    return update;
  }

  /** Takes a completion: whatever the chunks said, it is what the answer is. */
  public Update complete(CompletionEvent completion) {
    String id = completion.getPromptId();
    Text text = use(id);
    if (text.ended) {
      return nothing(id, text);
    }
    String content = completion.getContent();
    String reasoning = completion.getReasoning();
    boolean begun =
        !text.gap
            && !text.dead
            && text.attempt == completion.getAttempt()
            && startsWith(content, text.content)
            && startsWith(reasoning, text.reasoning);
    Update update =
        new Update(
            id,
            Kind.END,
            completion.getAttempt(),
            !begun,
            begun ? content.substring(text.content.length()) : content,
            begun ? reasoning.substring(text.reasoning.length()) : reasoning);
    drop(text);
    text.dead = false;
    text.ended = true;
    text.attempt = completion.getAttempt();
    return update;
  }

  /**
   * The prompt has ended without a completion: it is a dead letter. What is late of its chunks says
   * nothing; a newer attempt does, and a completion brings the whole answer, since somebody may
   * have replayed it.
   */
  public void end(String promptId) {
    Text text = use(promptId);
    drop(text);
    text.dead = !text.ended;
  }

  /** Answers that are kept now, those that have ended for a while included. */
  public int size() {
    return texts.size();
  }

  /** Characters that are kept now. */
  public long characters() {
    return characters;
  }

  /** How many unfinished answers were forgotten for the limits' sake. */
  public long forgotten() {
    return forgotten;
  }

  private static boolean startsWith(String whole, StringBuilder begin) {
    return whole.length() >= begin.length()
        && CharSequence.compare(whole.substring(0, begin.length()), begin) == 0;
  }

  private static Update nothing(String id, Text text) {
    return new Update(id, Kind.NOTHING, text.attempt, false, "", "");
  }

  private void drop(Text text) {
    characters -= text.length();
    text.clear();
  }

  private Text use(String id) {
    long now = nanos.getAsLong();
    Iterator<Text> oldest = texts.values().iterator();
    while (oldest.hasNext()) {
      Text text = oldest.next();
      boolean idle = now - text.usedAt > limits.idle().toNanos();
      if (!idle && (texts.size() < limits.prompts() || texts.containsKey(id))) {
        break;
      }
      forgotten += text.ended || text.dead ? 0 : 1;
      drop(text);
      oldest.remove();
    }
    Text text = texts.computeIfAbsent(id, i -> new Text());
    text.usedAt = now;
    return text;
  }

  /** Makes room, least recently used first; the answers are then as after a gap. */
  private void forgetTexts() {
    Iterator<Text> oldest = texts.values().iterator();
    while (characters > limits.characters() && oldest.hasNext()) {
      Text text = oldest.next();
      if (text.length() > 0) {
        forgotten++;
        drop(text);
        text.gap = true;
      }
    }
  }
}
