"""A program trtexec over the double of TensorRT: `trtexec`, in this folder, for the front of a PATH."""
