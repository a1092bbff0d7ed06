using System.Runtime.CompilerServices;

namespace NbdKit.Plugins.Fat;

/// <summary>One context of <see cref="FloppyPlugin"/>.</summary>
internal sealed class FatDisk(FatImage image) : INbdPluginHandle
{
    // More than this takes long enough to be worth another thread.
    private const int InlineBytes = 64 << 10;

    private readonly FatFiles _files = new();

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = image.Size,
        CanCache = Support.Emulate,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        FatRun run = image.RunAt(offset);
        if (buffer.Length > run.End - offset || (run.File is null && buffer.Length > InlineBytes))
        {
            return ReadAcrossAsync(buffer, offset, cancellationToken);
        }
        if (run.File is not null)
        {
            return _files.ReadAsync(run.File, buffer, offset - run.Start, cancellationToken);
        }
        image.Fill(run, buffer.Span, offset - run.Start);
        return default;
    }

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        long end = offset + length;
        while (offset < end && !extents.IsFull)
        {
            FatRun run = image.RunAt(offset);
            extents.Add(run.Start, run.End - run.Start, run.IsZero ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            offset = run.End;
            if ((flags & RequestFlags.RequestOne) != 0 && extents.Count > 1)
            {
                break;
            }
        }
        return default;
    }

    public async ValueTask CloseAsync()
    {
        // On a network file system even closing may wait.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        _files.Close();
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadAcrossAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (buffer.Length > InlineBytes)
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        }
        while (!buffer.IsEmpty)
        {
            cancellationToken.ThrowIfCancellationRequested();
            FatRun run = image.RunAt(offset);
            int count = (int)Math.Min(buffer.Length, run.End - offset);
            if (run.File is not null)
            {
                await _files.ReadAsync(run.File, buffer[..count], offset - run.Start, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                image.Fill(run, buffer.Span[..count], offset - run.Start);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }
}
