package dev.millrace.inference.api;

/** Why a generation ended. */
public enum FinishReason {
  /** A stop token or a stop string. */
  STOP,
  /** maxTokens or the model's context is used up. */
  LENGTH,
  /** It ended with at least one tool call. */
  TOOL_CALLS,
  /** {@link Generator.Generation#cancel()}. */
  CANCELLED
}
