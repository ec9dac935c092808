"""Writes a run's weights as a Hugging Face checkpoint.

    python export.py --run runs/cpu --out checkpoint
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import tokenizer as tok

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    saved = torch.load(Path(args.run) / "last.pt", map_location="cpu", weights_only=False)
    config = saved["config"]
    weights = {name: t.to(torch.bfloat16).contiguous() for name, t in saved["model"].items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (out / "generation_config.json").write_text(json.dumps(
        {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"], "do_sample": False,
         "temperature": 1.0, "top_p": 1.0}, indent=1) + "\n")
    shutil.copy(tok.PATH, out / "tokenizer.json")
    template = (HERE / "chat_template.jinja").read_text()
    shutil.copy(HERE / "chat_template.jinja", out / "chat_template.jinja")
    decoder = {str(saved_id): {"content": s, "lstrip": False, "rstrip": False, "normalized": False,
                               "single_word": False, "special": True}
               for s in tok.SPECIAL for saved_id in [tok.load().token_to_id(s)]}
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
         "pad_token": "<|end_of_text|>", "model_max_length": config["max_position_embeddings"],
         "clean_up_tokenization_spaces": False, "added_tokens_decoder": decoder, "chat_template": template},
        indent=1, ensure_ascii=False) + "\n")
    size = (out / "model.safetensors").stat().st_size
    print(f"{sum(t.numel() for t in weights.values())} parameters, {size} bytes, after", saved["state"])


if __name__ == "__main__":
    main()
