package dev.millrace.topology.bundle;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/**
 * Writes jars whose entries are stored as they are: the archive around all of them compresses far
 * better than each for itself. Equal contents give equal bytes.
 */
final class BundleJar implements AutoCloseable {
  private final ZipOutputStream out;

  private BundleJar(OutputStream out) {
    this.out = new ZipOutputStream(out);
  }

  /** What of a library goes into the bundle. */
  static void copy(Path jar, Path to, SymbolStripper stripper) throws IOException {
    try (ZipFile in = new ZipFile(jar.toFile());
        BundleJar out = new BundleJar(Files.newOutputStream(to))) {
      // The order of a jar is kept: its manifest must come first.
      for (ZipEntry entry : (Iterable<ZipEntry>) in.stream().map(e -> (ZipEntry) e)::iterator) {
        if (!entry.isDirectory() && BundleParts.keepsEntry(entry.getName())) {
          try (InputStream data = in.getInputStream(entry)) {
            byte[] content = data.readAllBytes();
            boolean library = entry.getName().endsWith(".so");
            out.add(entry.getName(), library ? stripper.library(content) : content);
          }
        }
      }
    }
  }

  /** A folder of classes. */
  static void pack(Path folder, Path to) throws IOException {
    TreeMap<String, Path> files = new TreeMap<>();
    try (Stream<Path> walk = Files.walk(folder)) {
      for (Path file : walk.filter(Files::isRegularFile).toList()) {
        files.put(folder.relativize(file).toString().replace('\\', '/'), file);
      }
    }
    try (BundleJar out = new BundleJar(Files.newOutputStream(to))) {
      for (Map.Entry<String, Path> file : files.entrySet()) {
        if (BundleParts.keepsEntry(file.getKey())) {
          out.add(file.getKey(), Files.readAllBytes(file.getValue()));
        }
      }
    }
  }

  private void add(String name, byte[] data) throws IOException {
    ZipEntry entry = new ZipEntry(name);
    entry.setMethod(ZipEntry.STORED);
    entry.setSize(data.length);
    CRC32 sum = new CRC32();
    sum.update(data);
    entry.setCrc(sum.getValue());
    entry.setTime(0);
    out.putNextEntry(entry);
    out.write(data);
    out.closeEntry();
  }

  @Override
  public void close() throws IOException {
    out.close();
  }
}
