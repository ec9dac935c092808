package dev.millrace.schemas;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.Comparator;
import java.util.List;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.apache.kafka.common.errors.SerializationException;
import org.jspecify.annotations.Nullable;

/**
 * Keeps the credentials that a registry's URL may hold ({@code https://user:secret@host}) out of
 * messages and causes, which end in logs and in the headers of dead letters. Safe for several
 * threads.
 */
final class Secrets {
  private static final String HIDDEN = "[hidden]";

  /** A shorter password is no secret, and hiding it everywhere would make texts unreadable. */
  private static final int SHORTEST = 4;

  private static final Pattern NO_USER_INFO = Pattern.compile("[/?#:@]");

  private final List<String> texts;

  private Secrets(List<String> texts) {
    this.texts = texts;
  }

  /** Those of URLs, which need not be well-formed. */
  static Secrets of(List<String> urls) {
    TreeSet<String> found =
        new TreeSet<>(Comparator.comparingInt(String::length).reversed().thenComparing(s -> s));
    for (String url : urls) {
      int start = afterScheme(url);
      int at = url.lastIndexOf('@');
      if (at > start) {
        String userInfo = url.substring(start, at);
        String password = userInfo.substring(userInfo.indexOf(':') + 1);
        found.addAll(List.of(userInfo, password, decoded(userInfo), decoded(password)));
        // Where it is not encoded as it must be, complaints about the URL show pieces of it.
        found.addAll(List.of(NO_USER_INFO.split(password)));
      }
    }
    found.removeIf(text -> text.length() < SHORTEST);
    return new Secrets(List.copyOf(found));
  }

  /** The URL without its user-info. */
  static String without(String url) {
    int start = afterScheme(url);
    int at = url.lastIndexOf('@');
    return at < start ? url : url.substring(0, start) + url.substring(at + 1);
  }

  private static int afterScheme(String url) {
    int scheme = url.indexOf("://");
    return scheme < 0 ? 0 : scheme + 3;
  }

  private static String decoded(String text) {
    try {
      return URLDecoder.decode(text, StandardCharsets.UTF_8);
    } catch (IllegalArgumentException e) {
      return text;
    }
  }

  /** The failure itself, or where it or its causes tell a secret, one like it that does not. */
  SerializationException hide(SerializationException e) {
    if (!toldBy(e)) {
      return e;
    }
    String message = hide(String.valueOf(e.getMessage()));
    Throwable cause = standIn(e.getCause());
    SerializationException clean =
        switch (e) {
          case RegistryUnavailableException r ->
              r.answered()
                  ? RegistryUnavailableException.refused(message, cause)
                  : new RegistryUnavailableException(message, cause);
          default -> new BadRecordException(message, cause);
        };
    clean.setStackTrace(e.getStackTrace());
    return clean;
  }

  private boolean toldBy(Throwable e) {
    if (texts.isEmpty()) {
      return false;
    }
    StringWriter trace = new StringWriter();
    e.printStackTrace(new PrintWriter(trace));
    return texts.stream().anyMatch(trace.toString()::contains);
  }

  private String hide(String text) {
    String hidden = text;
    for (String secret : texts) {
      hidden = hidden.replace(secret, HIDDEN);
    }
    return hidden;
  }

  private @Nullable Throwable standIn(@Nullable Throwable e) {
    if (e == null) {
      return null;
    }
    IOException standIn = new IOException(hide(e.toString()), standIn(e.getCause()));
    standIn.setStackTrace(e.getStackTrace());
    return standIn;
  }
}
