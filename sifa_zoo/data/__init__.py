"""Videos in, clips out: `decode` reads frames, `sampling` picks, `transforms` prepares, `datasets` lists them."""
