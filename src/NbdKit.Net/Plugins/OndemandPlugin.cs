using System.Text;
using NbdKit.Buffers;
using NbdKit.Native;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins;

/// <summary>
/// A directory of disks, each made when a client first asks for its name, and kept (nbdkit-ondemand-plugin(1)). Linux only.
/// </summary>
/// <remarks>
/// <para>
/// An export name is the name of a file in the directory: at most 255 bytes of UTF-8, no slash, no dot at the beginning. "" stands
/// for <c>default</c>. A disk that is in use is locked against other clients, of this server, of other processes and of nbdkit
/// alike; they are refused with EINVAL, or wait.
/// </para>
/// <para>
/// A disk gets its name when it is complete: one that could not be made leaves nothing behind, and two clients that ask for the same
/// new name get the same disk. While it is made it is in a directory beside the others whose name begins with a dot; <c>$disk</c> is
/// a path there, which ends with the export's name. Clients can fill the disk of the server with new names: only for those that are
/// trusted. All else is as with <see cref="TmpdiskPlugin"/>.
/// </para>
/// </remarks>
public sealed class OndemandPlugin : INbdPlugin
{
    private const string DefaultName = "default";
    private const char Colon = ':';
    private const int LongestName = 255;

    private static readonly TimeSpan LockInterval = TimeSpan.FromMilliseconds(50);

    private readonly SemaphoreSlim _making = new(1);
    private DiskMaker? _maker;

    /// <summary>The plugin in the catalogue: <c>ondemand</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "ondemand",
        "disks in a directory, made when first asked for; any other parameter is a variable for the command",
        [
            new NbdParameter("dir", "the directory of the disks") { IsRequired = true },
            new NbdParameter("size", "the size of a new disk") { IsRequired = true },
            new NbdParameter("max-size", "lets clients choose the size of new disks, up to this one, with names such as disk:4G"),
            new NbdParameter("type", "the file system (default: ext4)"),
            new NbdParameter("label", "the label of the file system"),
            new NbdParameter("wait", "true to wait for a disk that is in use (default: false)"),
            new NbdParameter("share", "true to let several clients use a disk at once, without any lock (default: false)"),
            new NbdParameter("command", "a shell script that makes the disk $disk, instead of mkfs"),
        ],
        parameters => new OndemandPlugin
        {
            Directory = parameters.Required("dir"),
            Size = parameters.Size("size")!.Value,
            MaximumSize = parameters.Size("max-size"),
            Type = parameters.Text("type") ?? "ext4",
            Label = parameters.Text("label"),
            Wait = parameters.Boolean("wait") ?? false,
            Share = parameters.Boolean("share") ?? false,
            Command = parameters.Text("command"),
            Variables = TmpdiskPlugin.Others(parameters, "dir", "size", "max-size", "type", "label", "wait", "share", "command"),
        })
    {
        MagicParameter = "size",
        TakesOtherParameters = true,
    };

    /// <summary>The directory of the disks.</summary>
    /// <value>A full path: a relative one is resolved when it is set. Must be given.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public required string Directory { get; init => field = Path.GetFullPath(value); }

    /// <inheritdoc cref="TmpdiskPlugin.Size"/>
    public long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <summary>The largest size in bytes that a client may choose for a new disk, from 0, or null for none.</summary>
    /// <remarks>
    /// An export name such as <c>disk:4G</c> is then the disk <c>disk</c>, and 4 GiB if it must be made: what follows the colon
    /// is a size as <see cref="NbdParse.Size"/> reads it. Opening fails with EINVAL if it is none or more than this. A disk that there
    /// is already is served as it is, whatever the size in the name. Names without a colon make disks of <see cref="Size"/>, and files
    /// with a colon in their names are not served. This is one of nbdkit's ideas for its plugin, which does not have it.
    /// </remarks>
    /// <value>Null by default: a colon is a part of the name.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? MaximumSize
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(MaximumSize));
            field = value;
        }
    }

    /// <inheritdoc cref="TmpdiskPlugin.Type"/>
    public string Type { get; init; } = "ext4";

    /// <inheritdoc cref="TmpdiskPlugin.Label"/>
    public string? Label { get; init; }

    /// <inheritdoc cref="TmpdiskPlugin.Command"/>
    public string? Command { get; init; }

    /// <inheritdoc cref="TmpdiskPlugin.Variables"/>
    public IReadOnlyDictionary<string, string> Variables { get; init; } = new Dictionary<string, string>();

    /// <summary>Whether a client waits for a disk that is in use, instead of being refused. False by default.</summary>
    public bool Wait { get; init; }

    /// <summary>
    /// Whether several clients may use a disk at once: it is not locked, and multi-conn is offered. Only for clients that know of each
    /// other. False by default.
    /// </summary>
    public bool Share { get; init; }

    /// <summary>The clock of <see cref="Wait"/>. The system's by default.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "ondemand";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Checks the settings, that the directory is there, and the program that makes disks.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">A setting is wrong.</exception>
    /// <exception cref="NbdException">There is no such directory or program.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (!System.IO.Directory.Exists(Directory))
        {
            throw new NbdException(NbdError.InvalidArgument, $"ondemand: {Directory} is not a directory");
        }
        _maker = new DiskMaker(Name, Type, Label, Command, Variables);
        _maker.GetReady();
        return default;
    }

    /// <summary>Lists the default export, and the disks that there are.</summary>
    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        exports.Add("");
        foreach (string name in FilePlugin.SortedNames(Directory))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (exports.Count == ExportList.MaximumCount)
            {
                break;
            }
            if (name != DefaultName && IsName(name) && !(MaximumSize is not null && name.Contains(Colon, StringComparison.Ordinal)) && SparseFile.IsServable(PathOf(name), followLinks: true))
            {
                exports.Add(name);
            }
        }
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken) => new(DefaultName);

    /// <summary>Opens a disk, after making it if there is none of that name.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">The name is none, the disk is in use, or it could not be made.</exception>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        (string name, long size) = Parse(context.ExportName);
        if (!IsName(name))
        {
            throw new NbdException(NbdError.InvalidArgument, "ondemand: the export name cannot be the name of a disk");
        }
        if (!Exists(name))
        {
            await MakeAsync(name, size, cancellationToken).ConfigureAwait(false);
        }
        SparseFile file = SparseFile.Open(PathOf(name), context.ReadOnly, followLinks: true, FileOptions.None);
        try
        {
            if (!Share)
            {
                await LockAsync(file, cancellationToken).ConfigureAwait(false);
            }
            return new MadeDisk(file, multiConn: Share, durable: true, owned: true);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private (string Name, long Size) Parse(string exportName)
    {
        int colon = MaximumSize is null ? -1 : exportName.IndexOf(Colon, StringComparison.Ordinal);
        string name = colon < 0 ? exportName : exportName[..colon];
        return (name.Length == 0 ? DefaultName : name, colon < 0 ? Size : SizeIn(exportName[(colon + 1)..]));
    }

    private long SizeIn(string text)
    {
        long size;
        try
        {
            size = NbdParse.Size(text);
        }
        catch (FormatException e)
        {
            throw new NbdException(NbdError.InvalidArgument, "ondemand: what follows the colon in the export name is no size", e);
        }
        return size <= MaximumSize
            ? size
            : throw new NbdException(
                NbdError.InvalidArgument, $"ondemand: the size {size} in the export name is more than the {MaximumSize} bytes allowed");
    }

    private static bool IsName(string name)
        => name.Length > 0 && name[0] != '.' && !name.AsSpan().ContainsAny('/', '\0') && Encoding.UTF8.GetByteCount(name) <= LongestName;

    private string PathOf(string name) => Path.Join(Directory, name);

    private bool Exists(string name) => LinuxFile.Stat(PathOf(name), followLinks: false, out _) == 0;

    private async Task MakeAsync(string name, long size, CancellationToken cancellationToken)
    {
        await _making.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (Exists(name))
            {
                return;
            }
            string folder = MadeDisk.MakeFolder(Directory, ".ondemand");
            try
            {
                string disk = Path.Join(folder, name);
                await _maker!.MakeAsync(disk, size, cancellationToken).ConfigureAwait(false);
                File.Move(disk, PathOf(name), overwrite: false);
            }
            catch (IOException e) when (!Exists(name))
            {
                throw FileErrors.FromException(e, "ondemand: the command has made no disk");
            }
            catch (IOException)
            {
                // Another process was faster.
            }
            finally
            {
                System.IO.Directory.Delete(folder, recursive: true);
            }
        }
        finally
        {
            _making.Release();
        }
    }

    /// <summary>Locks the whole file for as long as it is open: against everybody, or against writers if it is opened read-only.</summary>
    private async Task LockAsync(SparseFile file, CancellationToken cancellationToken)
    {
        while (true)
        {
            int error = LinuxFile.TryLock(file.Handle, exclusive: file.CanWrite);
            if (error == 0)
            {
                return;
            }
            if (error is not (Errno.AccessDenied or Errno.TryAgain))
            {
                throw FileErrors.FromErrno(error, "ondemand: cannot lock the disk");
            }
            if (!Wait)
            {
                throw new NbdException(NbdError.InvalidArgument, "ondemand: the disk is in use by another client");
            }
            await Task.Delay(LockInterval, TimeProvider, cancellationToken).ConfigureAwait(false);
        }
    }
}
