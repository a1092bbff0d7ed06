using System.ComponentModel;
using System.Diagnostics;

namespace NbdKit.Plugins.Data;

// What is read from elsewhere.
internal sealed partial class DataEvaluator
{
    private long _read;

    private async Task<DataPiece> FileAsync(DataNode node, long from, long? to, CancellationToken cancellationToken)
    {
        try
        {
            var options = new FileStreamOptions { BufferSize = 0, Options = FileOptions.Asynchronous };
            FileStream file = File.Open(node.Text, options);
            await using (file.ConfigureAwait(false))
            {
                if (file.CanSeek && from > 0)
                {
                    // One byte is left to be skipped, so that a file that ends before is noticed.
                    file.Position = from - 1;
                    (from, to) = (1, to - (from - 1));
                }
                return await CopyAsync(node, file, from, to, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw node.Fault($"cannot read {node.Text}: {e.Message}", e);
        }
    }

    private async Task<DataPiece> ScriptAsync(DataNode node, long from, long? to, CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", node.Text]) { RedirectStandardInput = true, RedirectStandardOutput = true };
        Process process;
        try
        {
            process = Process.Start(start)!;
        }
        catch (Win32Exception e)
        {
            throw node.Fault("cannot run the script", e);
        }
        using (process)
        {
            try
            {
                process.StandardInput.Close();
                DataPiece piece = await CopyAsync(node, process.StandardOutput.BaseStream, from, to, cancellationToken)
                    .ConfigureAwait(false);
                if (to is not null)
                {
                    // It may have more to say, without end.
                    return piece;
                }
                await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
                return process.ExitCode == 0 ? piece : throw node.Fault($"the script failed with status {process.ExitCode}");
            }
            finally
            {
                process.Kill(entireProcessTree: true);
            }
        }
    }

    private async Task<DataPiece> CopyAsync(
        DataNode node, Stream source, long from, long? to, CancellationToken cancellationToken)
    {
        var assembly = new DataAssembly();
        byte[] buffer = new byte[DataPiece.BlockSize];
        long left = to ?? long.MaxValue;
        while (left > 0)
        {
            int count = await source.ReadAtLeastAsync(
                buffer.AsMemory(0, (int)Math.Min(buffer.Length, left)), (int)Math.Min(buffer.Length, left), false, cancellationToken)
                .ConfigureAwait(false);
            if (count == 0)
            {
                break;
            }
            left -= count;
            int skipped = (int)Math.Min(from, count);
            from -= skipped;
            if ((_read += count - skipped) > memoryLimit)
            {
                throw node.Fault($"what is read from elsewhere is more than the {memoryLimit} bytes that it may be");
            }
            assembly.Add(DataPiece.Of(buffer[skipped..count]));
        }
        return (to is null && from == 0) || left == 0
            ? assembly.Build()
            : throw node.Fault("it ends before what is to be cut out of it");
    }
}
