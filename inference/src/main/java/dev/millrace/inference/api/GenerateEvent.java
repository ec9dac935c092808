package dev.millrace.inference.api;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a generation reports, in order: any number of {@link Delta} and {@link ToolCall}, then
 * exactly one {@link Done} or {@link Failed}.
 */
public sealed interface GenerateEvent {

  /**
   * Progress. The deltas of one attempt concatenate to the texts of {@link Done}: a resumed one
   * begins with the text of the resumed tokens.
   *
   * @param content new text of the answer; may be empty (text is held back while it could still
   *     turn out to be a tag, a stop string or half a character)
   * @param reasoning new text of the reasoning
   * @param tokens ids generated since the last delta: what {@link GenerateRequest#resume()} takes
   *     back; never includes resumed ones
   */
  record Delta(String content, String reasoning, int[] tokens) implements GenerateEvent {}

  /**
   * A complete call.
   *
   * @param index 0 for the first call of the answer
   * @param arguments JSON text
   * @param problem null if the arguments fit the tool's schema, else why not
   */
  record ToolCall(int index, String name, String arguments, @Nullable String problem)
      implements GenerateEvent {}

  /** The end of a generation that came to one. */
  record Done(
      FinishReason finish,
      String content,
      String reasoning,
      List<ToolCall> toolCalls,
      Usage usage,
      Timings timings,
      List<TokenLogprob> logprobs)
      implements GenerateEvent {}

  /** The end of a generation that produced no answer. */
  record Failed(Failure failure, String message) implements GenerateEvent {}

  /** What the caller must do about a failure. */
  enum Failure {
    /** The request can never succeed: dead-letter it. */
    INVALID_REQUEST,
    /** Longer than the model's context: dead-letter it. */
    PROMPT_TOO_LONG,
    /** Asks for something that this engine does not have: dead-letter it. */
    UNSUPPORTED,
    /** Not the request's fault: submit it again. */
    ENGINE,
    /** The generator is closing: submit it again elsewhere. */
    CLOSED
  }

  /**
   * Tokens counted.
   *
   * @param cached prompt tokens whose keys and values came from the prefix cache
   * @param completion generated tokens, resumed ones included
   * @param reasoning generated tokens that were reasoning
   * @param resumed tokens that an earlier attempt generated and the request brought
   */
  record Usage(int prompt, int cached, int completion, int reasoning, int resumed) {
    /** Tokens that this attempt generated. */
    public int generated() {
      return Math.max(0, completion - resumed);
    }
  }

  /**
   * Durations in nanoseconds since the submission, of this attempt.
   *
   * @param queued until the first token of the prompt was computed
   * @param firstToken until the first new token; 0 if there was none
   */
  record Timings(long queued, long firstToken, long total) {}
}
