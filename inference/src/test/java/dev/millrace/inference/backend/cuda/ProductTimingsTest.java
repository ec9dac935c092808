package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.cuda.ProductTimings.Key;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ProductTimingsTest {
  private static final Key KEY = new Key("H200, 132", "580.1, CUDA 13000", "cuBLASLt 130101");

  @TempDir Path folder;

  private ProductTimings open() {
    return ProductTimings.open(folder.resolve("a/b"), KEY);
  }

  private ProductTimings written() {
    ProductTimings timings = open();
    timings.put("BF16 64x32 rows 1", "cublaslt 00ff");
    timings.put("BF16 64x32 rows 2", "cublaslt 11ee");
    timings.save();
    return timings;
  }

  @Test
  void shouldKnowWhatAnEarlierStartFound() throws IOException {
    assertThat(open().get("BF16 64x32 rows 1")).isNull();
    written();
    ProductTimings later = open();
    assertThat(later.get("BF16 64x32 rows 1")).isEqualTo("cublaslt 00ff");
    assertThat(later.get("BF16 64x32 rows 2")).isEqualTo("cublaslt 11ee");
    assertThat(later.size()).isEqualTo(2);
    try (Stream<Path> files = Files.list(folder.resolve("a/b"))) {
      assertThat(files).containsExactly(later.file());
    }
  }

  @Test
  void shouldNotWriteWhereNothingIsNew() throws IOException {
    Path file = written().file();
    Files.delete(file);
    ProductTimings timings = written();
    Files.delete(file);
    timings.put("BF16 64x32 rows 1", "cublaslt 00ff");
    timings.save();
    assertThat(file).doesNotExist();
  }

  @Test
  void shouldKeepOtherCardsDriversAndLibrariesApart() {
    written();
    for (Key other :
        List.of(
            new Key("H100, 132", KEY.driver(), KEY.library()),
            new Key(KEY.card(), "580.2, CUDA 13000", KEY.library()),
            new Key(KEY.card(), KEY.driver(), "cuBLASLt 130200"))) {
      assertThat(ProductTimings.open(folder.resolve("a/b"), other).size()).isZero();
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"cut", "flipped", "emptied", "endless", "pipe", "binary", "foreign", "folder"})
  @Timeout(60)
  void shouldTimeAnewWhereTheFileIsOfNoUse(String damage) throws IOException, InterruptedException {
    Path file = written().file();
    String text = Files.readString(file);
    switch (damage) {
      case "cut" -> Files.writeString(file, text.substring(0, text.length() / 2));
      case "flipped" -> Files.writeString(file, text.replace("00ff", "00fe"));
      case "emptied" -> Files.writeString(file, "");
      case "endless" -> {
        Files.delete(file);
        Files.createSymbolicLink(file, Path.of("/dev/zero"));
      }
      case "pipe" -> {
        Files.delete(file);
        int made = new ProcessBuilder("mkfifo", file.toString()).start().waitFor();
        assertThat(made).isZero();
      }
      case "binary" -> Files.write(file, new byte[] {(byte) 0xff, (byte) 0xfe, 0, 1});
      case "foreign" -> {
        // Whole, but what another card found.
        Key other = new Key("H100, 132", KEY.driver(), KEY.library());
        ProductTimings theirs = ProductTimings.open(folder, other);
        theirs.put("BF16 64x32 rows 1", "cublaslt 2222");
        theirs.save();
        Files.copy(theirs.file(), file, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
      }
      default -> {
        Files.delete(file);
        Files.createDirectory(file);
      }
    }
    ProductTimings anew = open();
    assertThat(anew.get("BF16 64x32 rows 1")).isNull();
    anew.put("BF16 64x32 rows 1", "cublaslt 3333");
    anew.save();
    if (!damage.equals("folder")) {
      assertThat(open().get("BF16 64x32 rows 1")).isEqualTo("cublaslt 3333");
    }
  }

  @Test
  void shouldStayWholeWhereSeveralWriteAtOnce() throws Exception {
    int writers = 8;
    try (ExecutorService threads = Executors.newFixedThreadPool(writers)) {
      List<Future<?>> done = new ArrayList<>();
      for (int w = 0; w < writers; w++) {
        String own = "own " + w;
        done.add(
            threads.submit(
                () -> {
                  for (int i = 0; i < 20; i++) {
                    ProductTimings timings = open();
                    // Whoever wrote last had read a whole file before.
                    assertThat(timings.size()).isLessThanOrEqualTo(writers);
                    timings.put(own, "cublaslt " + i);
                    timings.save();
                  }
                }));
      }
      for (Future<?> writer : done) {
        writer.get();
      }
    }
    ProductTimings last = open();
    assertThat(last.size()).isPositive();
    last.put("more", "cublaslt 1");
    last.save();
    assertThat(open().size()).isEqualTo(last.size());
  }
}
