package dev.millrace.inference.backend.cuda;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.CRC32;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Which way to compute each product was the fastest, in a file, so that a later start need not find
 * out again. What was found holds for one card, driver and library: these name the file, and stand
 * in it.
 *
 * <p>The file is lines of text with a checksum in the last one. It is replaced as a whole, so that
 * processes that start at once read a whole one; of two that write at once the later one wins, with
 * what the other had written before. A file that is damaged or of something else is left out and
 * written anew. Nothing here keeps a worker from starting. One thread at a time.
 */
final class ProductTimings {
  private static final Logger LOG = LoggerFactory.getLogger(ProductTimings.class);

  /** Changes with the lines' meaning. */
  private static final String FORMAT = "millrace product timings, format 1";

  private static final String END = "crc32 ";
  private static final int MOST_BYTES = 16 << 20;

  private final Path file;
  private final List<String> head;
  private final Map<String, String> ways;
  private boolean changed;

  /** What timings hold for, each one line. */
  record Key(String card, String driver, String library) {}

  private ProductTimings(Path file, List<String> head) {
    this.file = file;
    this.head = head;
    this.ways = read();
  }

  /** Reads what the folder has; it need not exist. */
  static ProductTimings open(Path folder, Key key) {
    List<String> head =
        List.of(FORMAT, "card " + key.card, "driver " + key.driver, "library " + key.library);
    return new ProductTimings(folder.resolve("products-" + name(head) + ".txt"), head);
  }

  private static String name(List<String> head) {
    try {
      byte[] digest =
          MessageDigest.getInstance("SHA-256")
              .digest(String.join("\n", head).getBytes(StandardCharsets.UTF_8));
      return HexFormat.of().formatHex(digest, 0, 8);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every Java has it
    }
  }

  Path file() {
    return file;
  }

  /** Of how many products something is known. */
  int size() {
    return ways.size();
  }

  /** What {@link #put} was given of a product, now or by an earlier process; null: nothing. */
  @Nullable String get(String product) {
    return ways.get(product);
  }

  /** Notes a product's way; neither has tabs or ends of lines. */
  void put(String product, String way) {
    changed |= !way.equals(ways.put(product, way));
  }

  /** Writes what is new. */
  void save() {
    if (!changed) {
      return;
    }
    // What others have found meanwhile stays.
    Map<String, String> all = read();
    all.putAll(ways);
    Path folder = file.toAbsolutePath().getParent();
    try {
      Files.createDirectories(folder);
      if (Files.exists(file) && !Files.isReadable(file)) {
        throw new IOException("it is another's, and may not be read");
      }
      Path part =
          Files.createTempFile(
              folder,
              "products-",
              ".part",
              PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-r--r--")));
      try {
        Files.writeString(part, text(all), StandardOpenOption.SYNC);
        Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(part);
      }
      changed = false;
    } catch (IOException e) {
      LOG.warn(
          "The timings of products are not kept: {} cannot be written: {}", file, e.toString());
    }
  }

  private String text(Map<String, String> all) {
    StringBuilder text = new StringBuilder();
    head.forEach(line -> text.append(line).append('\n'));
    all.forEach((product, way) -> text.append(product).append('\t').append(way).append('\n'));
    return text + END + checksum(text.toString()) + "\n";
  }

  private static String checksum(String text) {
    CRC32 crc = new CRC32();
    crc.update(text.getBytes(StandardCharsets.UTF_8));
    return HexFormat.of().toHexDigits((int) crc.getValue());
  }

  /** What the file has; nothing, with a line in the log, where it is of no use. */
  private Map<String, String> read() {
    try {
      if (!Files.exists(file, LinkOption.NOFOLLOW_LINKS)) {
        return new TreeMap<>();
      }
      // A pipe would be read for ever, a link may lead to what has no end.
      if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS)) {
        return useless("it is no plain file");
      }
      byte[] bytes;
      try (InputStream in = Files.newInputStream(file)) {
        bytes = in.readNBytes(MOST_BYTES + 1);
      }
      if (bytes.length > MOST_BYTES) {
        return useless("it is larger than any that was written here");
      }
      return parse(new String(bytes, StandardCharsets.UTF_8));
    } catch (NoSuchFileException e) {
      return new TreeMap<>();
    } catch (IOException e) {
      return useless(e.toString());
    }
  }

  private Map<String, String> parse(String text) {
    int end = text.lastIndexOf(END);
    if (end < 0 || !text.substring(end).equals(END + checksum(text.substring(0, end)) + "\n")) {
      return useless("it is damaged");
    }
    List<String> lines = text.substring(0, end).lines().toList();
    if (lines.size() < head.size() || !lines.subList(0, head.size()).equals(head)) {
      return useless("it is of another card, driver, library or format");
    }
    Map<String, String> found = new TreeMap<>();
    for (String line : lines.subList(head.size(), lines.size())) {
      int tab = line.indexOf('\t');
      if (tab < 0) {
        return useless("it has a line that says nothing");
      }
      found.put(line.substring(0, tab), line.substring(tab + 1));
    }
    return found;
  }

  private Map<String, String> useless(String why) {
    LOG.warn("Products are timed anew: the timings in {} cannot be used: {}", file, why);
    return new TreeMap<>();
  }
}
