package dev.millrace.inference.chat.jinja;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Python's {@code text % values}, and its strftime. */
final class Format {
  private static final Pattern SPEC =
      Pattern.compile("%([-+ 0#]*)(\\d*)(?:\\.(\\d*))?([a-zA-Z%]?)");
  private static final int MOST_WIDTH = 1000;

  private Format() {}

  static String apply(String format, @Nullable Object arguments, Budget budget) {
    List<?> values =
        arguments instanceof Tuple t ? t : java.util.Collections.singletonList(arguments);
    StringBuilder out = new StringBuilder();
    Matcher spec = SPEC.matcher(format);
    int at = 0;
    int used = 0;
    while (spec.find(at)) {
      out.append(format, at, spec.start());
      at = spec.end();
      if (spec.group(4).equals("%")) {
        out.append('%');
        continue;
      }
      if (used == values.size()) {
        throw new TemplateException("not enough arguments for format string");
      }
      out.append(one(spec, values.get(used++), budget));
      budget.text(out.length());
    }
    if (used < values.size() && !(arguments instanceof java.util.Map<?, ?>)) {
      throw new TemplateException("not all arguments converted during string formatting");
    }
    return out.append(format, at, format.length()).toString();
  }

  private static String one(Matcher spec, @Nullable Object value, Budget budget) {
    String flags = spec.group(1);
    int width = bounded(spec.group(2), 0);
    int precision = bounded(spec.group(3), -1);
    char kind = spec.group(4).isEmpty() ? ' ' : spec.group(4).charAt(0);
    String text =
        switch (kind) {
          case 's' -> cut(Values.text(value, budget), precision);
          case 'r' -> {
            StringBuilder repr = new StringBuilder();
            Printer.repr(value, repr, budget);
            yield cut(repr.toString(), precision);
          }
          case 'd', 'i', 'u' -> sign(flags, Long.toString(whole(value)));
          case 'x' -> Long.toHexString(whole(value));
          case 'X' -> Long.toHexString(whole(value)).toUpperCase(Locale.ROOT);
          case 'o' -> Long.toOctalString(whole(value));
          case 'f', 'F' ->
              sign(
                  flags,
                  new BigDecimal(real(value))
                      .setScale(precision < 0 ? 6 : precision, RoundingMode.HALF_EVEN)
                      .toPlainString());
          case 'e' ->
              String.format(Locale.ROOT, "%." + (precision < 0 ? 6 : precision) + "e", real(value));
          default -> throw new TemplateException("unsupported format character '" + kind + "'");
        };
    int missing = width - text.codePointCount(0, text.length());
    if (missing <= 0) {
      return text;
    }
    if (flags.contains("-")) {
      return text + " ".repeat(missing);
    }
    if (flags.contains("0") && kind != 's' && kind != 'r') {
      int head = text.startsWith("-") || text.startsWith("+") ? 1 : 0;
      return text.substring(0, head) + "0".repeat(missing) + text.substring(head);
    }
    return " ".repeat(missing) + text;
  }

  private static int bounded(@Nullable String digits, int otherwise) {
    if (digits == null || digits.isEmpty()) {
      return otherwise;
    }
    if (digits.length() > 4 || Integer.parseInt(digits) > MOST_WIDTH) {
      throw new TemplateException("a width or precision of more than " + MOST_WIDTH);
    }
    return Integer.parseInt(digits);
  }

  private static String cut(String text, int precision) {
    return precision < 0 || text.codePointCount(0, text.length()) <= precision
        ? text
        : text.substring(0, text.offsetByCodePoints(0, precision));
  }

  private static String sign(String flags, String number) {
    return number.startsWith("-")
        ? number
        : flags.contains("+") ? "+" + number : flags.contains(" ") ? " " + number : number;
  }

  private static long whole(@Nullable Object value) {
    Number number = Values.number(value);
    if (number instanceof Long || number instanceof Double) {
      return number.longValue();
    }
    throw new TemplateException(
        "%d format: a real number is required, not " + Values.typeName(value));
  }

  private static double real(@Nullable Object value) {
    Number number = Values.number(value);
    if (number == null
        || Double.isInfinite(number.doubleValue())
        || Double.isNaN(number.doubleValue())) {
      throw new TemplateException("must be a finite real number, not " + Values.typeName(value));
    }
    return number.doubleValue();
  }

  /** Python's strftime in the C locale. */
  static String time(ZonedDateTime time, String format) {
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < format.length(); i++) {
      char c = format.charAt(i);
      if (c != '%' || i + 1 == format.length()) {
        out.append(c);
        continue;
      }
      c = format.charAt(++i);
      // %-d and the like leave out the leading zero.
      boolean bare = c == '-' && i + 1 < format.length();
      if (bare) {
        c = format.charAt(++i);
      }
      String part = timePart(time, c);
      out.append(bare && part.length() > 1 && part.startsWith("0") ? part.substring(1) : part);
    }
    return out.toString();
  }

  private static String timePart(ZonedDateTime time, char c) {
    String pattern =
        switch (c) {
          case 'Y' -> "uuuu";
          case 'y' -> "uu";
          case 'm' -> "MM";
          case 'd' -> "dd";
          case 'H' -> "HH";
          case 'I' -> "hh";
          case 'M' -> "mm";
          case 'S' -> "ss";
          case 'f' -> "SSSSSS";
          case 'p' -> "a";
          case 'b', 'h' -> "MMM";
          case 'B' -> "MMMM";
          case 'a' -> "EEE";
          case 'A' -> "EEEE";
          case 'j' -> "DDD";
          case 'e' -> "ppd";
          case 'F' -> "uuuu-MM-dd";
          case 'T' -> "HH:mm:ss";
          case 'D' -> "MM/dd/uu";
          case 'R' -> "HH:mm";
          // The time that Python's datetime.now() gives has no zone.
          case 'z', 'Z' -> "";
          case '%' -> "'%'";
          default -> throw new TemplateException("strftime: %" + c + " is not supported");
        };
    return pattern.isEmpty() ? "" : DateTimeFormatter.ofPattern(pattern, Locale.US).format(time);
  }
}
