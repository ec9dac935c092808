package dev.millrace.inference.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.token.HfTokenizer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MadeUpTokenizerTest {
  @TempDir Path folder;

  @Test
  void shouldHaveATextForEachTokenOfTheVocabulary() throws Exception {
    MadeUpTokenizer.write(folder, 2000);
    try (HfTokenizer tokenizer = HfTokenizer.open(folder)) {
      assertThat(tokenizer.vocabSize()).isEqualTo(2000);
      Set<String> texts = new HashSet<>();
      for (int id = 0; id < 2000; id++) {
        texts.add(new String(tokenizer.bytes(id), StandardCharsets.ISO_8859_1));
      }
      assertThat(texts).hasSize(2000).contains("a", " a", " zz");
    }
  }

  @Test
  void shouldMakeTokensOfText() throws Exception {
    MadeUpTokenizer.write(folder, 300);
    try (HfTokenizer tokenizer = HfTokenizer.open(folder)) {
      assertThat(tokenizer.encode("az")).containsExactly('a', 'z');
    }
  }
}
