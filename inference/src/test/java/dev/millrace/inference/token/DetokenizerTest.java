package dev.millrace.inference.token;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalInt;
import java.util.Random;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

class DetokenizerTest {

  @Test
  void shouldGiveTransformersTextForAnyIds() throws Exception {
    try (HfTokenizer tokenizer = HfTokenizer.open(TextFixtures.tokenizerFolder())) {
      for (JsonNode sample : TextFixtures.json("tokens.json").path("decoded")) {
        Detokenizer detokenizer = new Detokenizer(tokenizer, List.of());
        StringBuilder text = new StringBuilder();
        for (int id : TextFixtures.ints(sample.path("ids"))) {
          text.append(detokenizer.append(id));
        }
        text.append(detokenizer.finish());
        assertThat(text.toString()).isEqualTo(sample.path("text").asText());
      }
    }
  }

  @Test
  void shouldGiveTheSameTextHoweverItIsCutIntoTokens() {
    Random random = new Random(5);
    String[] parts = {"a", "é", "東", "😀", "👨‍👩‍👧", " ", "\n", "stop", "\uFFFD", "st"};
    for (int round = 0; round < 2000; round++) {
      StringBuilder whole = new StringBuilder();
      for (int i = random.nextInt(12); i >= 0; i--) {
        whole.append(parts[random.nextInt(parts.length)]);
      }
      byte[] bytes = whole.toString().getBytes(StandardCharsets.UTF_8);
      List<byte[]> tokens = cut(bytes, random);
      StringBuilder text = new StringBuilder();
      Detokenizer detokenizer = new Detokenizer(new Bytes(tokens), List.of());
      for (int t = 0; t < tokens.size(); t++) {
        String piece = detokenizer.append(t);
        assertThat(piece.isEmpty() || !Character.isHighSurrogate(piece.charAt(piece.length() - 1)))
            .as("seed 5, round %s: half a pair in %s", round, piece)
            .isTrue();
        text.append(piece);
        assertThat(whole.toString())
            .as("seed 5, round %s: nothing is taken back", round)
            .startsWith(text.toString());
      }
      text.append(detokenizer.finish());
      assertThat(text.toString()).as("seed 5, round %s", round).isEqualTo(whole.toString());
    }
  }

  @Test
  void shouldGiveTheSameTextForInvalidBytesHoweverTheyAreCut() {
    Random random = new Random(6);
    for (int round = 0; round < 3000; round++) {
      byte[] bytes = new byte[random.nextInt(12) + 1];
      for (int i = 0; i < bytes.length; i++) {
        // Lead and continuation bytes above all.
        bytes[i] = (byte) (random.nextInt(5) == 0 ? 'x' : 0x80 + random.nextInt(0x80));
      }
      List<byte[]> tokens = cut(bytes, random);
      assertThat(text(tokens, List.of()))
          .as("seed 6, round %s", round)
          .isEqualTo(new String(bytes, StandardCharsets.UTF_8));
    }
  }

  @Test
  void shouldHoldBackAnIncompleteCharacterUntilItIsComplete() {
    byte[] euro = "€".getBytes(StandardCharsets.UTF_8);
    Detokenizer detokenizer =
        new Detokenizer(
            new Bytes(
                List.of(new byte[] {'a', euro[0]}, new byte[] {euro[1]}, new byte[] {euro[2]})),
            List.of());
    assertThat(detokenizer.append(0)).isEqualTo("a");
    assertThat(detokenizer.append(1)).isEmpty();
    assertThat(detokenizer.append(2)).isEqualTo("€");
    assertThat(detokenizer.append(0)).isEqualTo("a");
    assertThat(detokenizer.finish()).isEqualTo("\uFFFD");
    assertThat(detokenizer.finish()).isEmpty();
    assertThatThrownBy(() -> detokenizer.append(0)).isInstanceOf(IllegalStateException.class);
  }

  @Test
  void shouldStopAtTheStringThatIsCompleteFirstHoweverItIsCut() {
    Random random = new Random(8);
    String alphabet = "abc";
    int stopped = 0;
    for (int round = 0; round < 5000; round++) {
      String whole = letters(alphabet, random, 14);
      List<String> stops = new ArrayList<>();
      for (int i = random.nextInt(3); i >= 0; i--) {
        stops.add(letters(alphabet, random, 4));
      }
      // By the definition: the smallest end of any occurrence; of those the earliest start.
      int end = Integer.MAX_VALUE;
      @Nullable String by = null;
      for (String stop : stops) {
        int at = whole.indexOf(stop);
        if (at < 0) {
          continue;
        }
        int stopEnd = at + stop.length();
        if (stopEnd < end || (by != null && stopEnd == end && stop.length() > by.length())) {
          end = stopEnd;
          by = stop;
        }
      }
      String expected = by == null ? whole : whole.substring(0, end - by.length());
      List<byte[]> tokens = cut(whole.getBytes(StandardCharsets.UTF_8), random);
      Detokenizer detokenizer = new Detokenizer(new Bytes(tokens), stops);
      StringBuilder text = new StringBuilder();
      for (int t = 0; t < tokens.size(); t++) {
        text.append(detokenizer.append(t));
      }
      text.append(detokenizer.finish());
      assertThat(text.toString()).as("seed 8, round %s", round).isEqualTo(expected);
      assertThat(detokenizer.stoppedBy()).as("seed 8, round %s", round).isEqualTo(by);
      stopped += by == null ? 0 : 1;
    }
    assertThat(stopped).isBetween(1000, 4900);
  }

  @Test
  void shouldHoldBackNoMoreThanCouldBeAStopString() {
    Detokenizer detokenizer =
        new Detokenizer(
            new Bytes(
                List.of(
                    "ab".getBytes(StandardCharsets.UTF_8), "x".getBytes(StandardCharsets.UTF_8))),
            List.of("abab!"));
    assertThat(detokenizer.append(0)).isEmpty();
    assertThat(detokenizer.append(0)).isEmpty();
    assertThat(detokenizer.append(0)).as("only the last four may begin it").isEqualTo("ab");
    assertThat(detokenizer.append(1)).isEqualTo("ababx");
    assertThat(detokenizer.stoppedBy()).isNull();
  }

  private static String letters(String alphabet, Random random, int most) {
    StringBuilder s = new StringBuilder();
    for (int i = random.nextInt(most); i >= 0; i--) {
      s.append(alphabet.charAt(random.nextInt(alphabet.length())));
    }
    return s.toString();
  }

  private static String text(List<byte[]> tokens, List<String> stops) {
    Detokenizer detokenizer = new Detokenizer(new Bytes(tokens), stops);
    StringBuilder text = new StringBuilder();
    for (int t = 0; t < tokens.size(); t++) {
      text.append(detokenizer.append(t));
    }
    return text.append(detokenizer.finish()).toString();
  }

  private static List<byte[]> cut(byte[] bytes, Random random) {
    List<byte[]> tokens = new ArrayList<>();
    for (int at = 0; at < bytes.length; ) {
      int length = Math.min(bytes.length - at, random.nextInt(4));
      tokens.add(java.util.Arrays.copyOfRange(bytes, at, at + length));
      at += length;
    }
    return tokens;
  }

  /** A tokenizer whose tokens are the given bytes. */
  private record Bytes(List<byte[]> tokens) implements Tokenizer {
    @Override
    public int vocabSize() {
      return tokens.size();
    }

    @Override
    public SpecialMarks marks() {
      return new SpecialMarks(List.of());
    }

    @Override
    public int[] encode(String text, int most) {
      throw new UnsupportedOperationException();
    }

    @Override
    public int[] encodeMarked(String marked, int most) {
      throw new UnsupportedOperationException();
    }

    @Override
    public byte[] bytes(int token) {
      return tokens.get(token);
    }

    @Override
    public OptionalInt special(String content) {
      return OptionalInt.empty();
    }

    @Override
    public OptionalInt beginOfText() {
      return OptionalInt.empty();
    }

    @Override
    public void close() {}
  }
}
