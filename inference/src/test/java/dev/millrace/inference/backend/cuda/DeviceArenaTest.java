package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.backend.DeviceException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

class DeviceArenaTest {
  private static final long BASE = 0x7000_0000L;
  private static final long SEED = 11;

  @Test
  void shouldPutWhatIsTakenInTurnSideBySide() {
    DeviceArena arena = new DeviceArena(BASE, 4096);
    assertThat(arena.allocate("a", 512)).isEqualTo(BASE);
    assertThat(arena.allocate("b", 100)).isEqualTo(BASE + 512);
    assertThat(arena.allocate("c", 1)).isEqualTo(BASE + 768);
    assertThat(arena.largestFree()).isEqualTo(4096 - 1024);
  }

  @Test
  void shouldSayWhatWasNeededAndWhatThereWas() {
    DeviceArena arena = new DeviceArena(BASE, 8 << 20);
    arena.allocate("half", 4 << 20);
    assertThatThrownBy(() -> arena.allocate("the weight lm_head", 5 << 20))
        .isInstanceOf(DeviceException.class)
        .hasMessage(
            "the weight lm_head needs 5.0 MB of the GPU's memory: of the 8.0 MB that this process"
                + " holds 4.0 MB are taken, and the largest free piece has 4.0 MB");
  }

  @Test
  void shouldRefuseToFreeWhatWasNotTaken() {
    DeviceArena arena = new DeviceArena(BASE, 4096);
    long a = arena.allocate("a", 256);
    arena.free(a);
    assertThatThrownBy(() -> arena.free(a)).isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void shouldNeverHandOutAPieceTwiceNorLoseOne() {
    Random random = new Random(SEED);
    DeviceArena arena = new DeviceArena(BASE, 1 << 20);
    TreeMap<Long, Long> held = new TreeMap<>();
    for (int i = 0; i < 3_000; i++) {
      if (random.nextInt(5) < 3) {
        long length = 1 + random.nextInt(20_000);
        try {
          held.put(arena.allocate("x", length), length);
        } catch (DeviceException e) {
          assertThat(arena.largestFree()).as("seed %d", SEED).isLessThan(length + 256);
        }
      } else if (!held.isEmpty()) {
        List<Long> addresses = new ArrayList<>(held.keySet());
        long address = addresses.get(random.nextInt(addresses.size()));
        arena.free(address);
        held.remove(address);
      }
      long end = BASE;
      for (Map.Entry<Long, Long> piece : held.entrySet()) {
        assertThat(piece.getKey()).as("seed %d", SEED).isGreaterThanOrEqualTo(end);
        assertThat(piece.getKey() % DeviceArena.ALIGNMENT).isZero();
        end = piece.getKey() + piece.getValue();
      }
      assertThat(end).isLessThanOrEqualTo(BASE + (1 << 20));
    }
    List.copyOf(held.keySet()).forEach(arena::free);
    assertThat(arena.largestFree()).isEqualTo(1 << 20);
    assertThat(arena.used()).isZero();
  }
}
