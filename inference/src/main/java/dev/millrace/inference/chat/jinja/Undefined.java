package dev.millrace.inference.chat.jinja;

/**
 * The value of a name that has none: false, empty, and an error in almost any other use.
 *
 * @param reason what the error says
 */
record Undefined(String reason) {
  TemplateException error() {
    return new TemplateException(reason);
  }
}
