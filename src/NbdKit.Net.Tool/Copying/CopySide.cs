using Microsoft.Win32.SafeHandles;

namespace NbdKit.Tool.Copying;

/// <summary>One side of a copy, opened; and what has to be closed at its end.</summary>
internal sealed class CopySide : IAsyncDisposable
{
    private OpenedDisk? _disk;
    private Stream? _stream;

    /// <summary>The size in bytes, or null if it is not known.</summary>
    public long? Size => _disk?.Info.Size ?? (_stream is { CanSeek: true } ? _stream.Length - _stream.Position : null);

    public async Task<NbdCopySource> OpenSourceAsync(
        CopyCommandOptions options, NbdCatalogue catalogue, LogFactory log, CancellationToken cancellationToken)
    {
        if (options.Source is not { } argument)
        {
            _stream = Standard(0, FileAccess.Read);
            return NbdCopySource.From(_stream);
        }
        if (argument.Path is { } path && OpenPipe(path, FileAccess.Read) is { } pipe)
        {
            _stream = pipe;
            return NbdCopySource.From(pipe);
        }
        _disk = await argument.OpenAsync(catalogue, readOnly: true, options.Connections, log, cancellationToken).ConfigureAwait(false);
        return NbdCopySource.From(_disk.Contexts);
    }

    /// <summary>Opens or creates the destination.</summary>
    /// <param name="options">The command line.</param>
    /// <param name="size">Size of the source, or null if it is not known.</param>
    /// <param name="catalogue">The plugins and filters.</param>
    /// <param name="log">Receives what the layers report.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>The destination, and how to copy to it.</returns>
    public async Task<(NbdCopyDestination Destination, NbdCopyOptions Options)> OpenDestinationAsync(
        CopyCommandOptions options,
        long? size,
        NbdCatalogue catalogue,
        LogFactory log,
        CancellationToken cancellationToken)
    {
        NbdCopyOptions copy = options.Copy;
        if (options.ToNowhere)
        {
            return (NbdCopyDestination.Null, copy);
        }
        if (options.Destination is not { } argument)
        {
            _stream = Standard(1, FileAccess.Write);
            return (NbdCopyDestination.To(_stream), copy);
        }
        if (argument.Path is { } path)
        {
            if (OpenPipe(path, FileAccess.Write) is { } pipe)
            {
                _stream = pipe;
                return (NbdCopyDestination.To(pipe), copy);
            }
            bool isNew = Make(path, size, copy.JournalPath);
            // What was made here is zero, and stays so where it is to have no space of its own.
            copy = copy with { DestinationIsZero = copy.DestinationIsZero || (isNew && !copy.Allocated) };
            if (size is null && isNew)
            {
                _stream = Access(path, () => new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.Read, 0));
                return copy.Verify
                    ? throw new CommandException("--verify needs a source of known size if the destination is a file")
                    : (NbdCopyDestination.To(_stream), copy);
            }
        }
        _disk = await argument.OpenAsync(catalogue, readOnly: false, options.Connections, log, cancellationToken)
            .ConfigureAwait(false);
        return (NbdCopyDestination.To(_disk.Contexts), copy);
    }

    public async ValueTask DisposeAsync()
    {
        if (_disk is not null)
        {
            await _disk.DisposeAsync().ConfigureAwait(false);
        }
        if (_stream is not null)
        {
            await _stream.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Makes a file of a size that is one hole, unless a copy to it is resumed.</summary>
    /// <returns>Whether it is a file, and not a device.</returns>
    private static bool Make(string path, long? size, string? journal)
    {
        bool resumes = journal is not null && File.Exists(journal);
        if (resumes && !File.Exists(path))
        {
            throw new CommandException($"{path} is not there any more, but {journal} says that it was copied to; remove that to begin anew");
        }
        using FileStream file = Access(path, () => new FileStream(
            path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0));
        long length = file.Length;
        if (resumes)
        {
            return length > 0;
        }
        try
        {
            // A device has no length of its own, and cannot be given one.
            file.SetLength(0);
            file.SetLength(size ?? 0);
            return true;
        }
        catch (Exception e) when (length == 0 && e is IOException or ArgumentException or NotSupportedException
            && size != 0 && IsDevice(path))
        {
            return false;
        }
        catch (IOException e)
        {
            throw new CommandException($"{path}: {StandardText.OneLine(e)}", e);
        }
    }

    private static bool IsDevice(string path) => path.StartsWith("/dev/", StringComparison.Ordinal);

    /// <summary>Opens what is there but cannot seek; null for all else.</summary>
    private static FileStream? OpenPipe(string path, FileAccess access)
    {
        if (!File.Exists(path))
        {
            return null;
        }
        FileStream stream = Access(path, () => new FileStream(path, FileMode.Open, access, FileShare.ReadWrite, bufferSize: 0));
        if (!stream.CanSeek)
        {
            return stream;
        }
        stream.Dispose();
        return null;
    }

    private static FileStream Access(string path, Func<FileStream> open)
    {
        try
        {
            return open();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"{path}: {StandardText.OneLine(e)}", e);
        }
    }

    // Not the console's stream: that one cannot tell a file from a pipe.
    private static FileStream Standard(int descriptor, FileAccess access)
        => new(new SafeFileHandle(descriptor, ownsHandle: false), access, bufferSize: 0);
}
