"""Videos in, clips out: `sampling` picks frames, `decode` reads, `transforms` prepares clips, `datasets` gives them."""
