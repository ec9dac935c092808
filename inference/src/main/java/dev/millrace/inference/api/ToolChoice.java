package dev.millrace.inference.api;

import org.jspecify.annotations.Nullable;

/**
 * Whether and what the model may call.
 *
 * @param name the one tool to call, with {@link Mode#NAMED}
 */
public record ToolChoice(Mode mode, @Nullable String name) {
  /**
   * AUTO: as the model likes; NONE: no tools are shown; REQUIRED: at least one; NAMED: this one.
   */
  public enum Mode {
    AUTO,
    NONE,
    REQUIRED,
    NAMED
  }

  public static final ToolChoice AUTO = new ToolChoice(Mode.AUTO, null);
}
