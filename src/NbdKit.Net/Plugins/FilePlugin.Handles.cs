using Microsoft.Win32.SafeHandles;

namespace NbdKit.Plugins;

// Files that the host has opened.
public sealed partial class FilePlugin
{
    private Dictionary<string, HostFile>? _files;

    private HostFile? _file;

    /// <summary>A file or block device that the host has opened, served under whatever name a client asks for.</summary>
    /// <remarks>As for <see cref="Handles"/>.</remarks>
    /// <value>Null by default.</value>
    /// <exception cref="ArgumentException">The handle is closed or not valid.</exception>
    public SafeFileHandle? Handle
    {
        get;
        init
        {
            field = value;
            _file = value is null ? null : new HostFile(Valid(value, ""));
        }
    }

    /// <summary>
    /// Files and block devices that the host has opened, each by the name of its export. The name "" is that of the default export;
    /// without it there is none.
    /// </summary>
    /// <remarks>
    /// <para>
    /// The handles remain the host's, which closes them when it likes: while any client has the file open it stays open, and the
    /// host's closing takes effect when the last one has left; who opens the export after that is refused. The position of a handle is not used, but may be changed.
    /// </para>
    /// <para>
    /// On Linux a handle that was opened for reading is served read-only, and one that cannot be read, or that appends, is refused
    /// at the start. Elsewhere a handle counts as one for reading and writing, and writes fail if it is not.
    /// </para>
    /// </remarks>
    /// <value>Null by default. What is set is copied.</value>
    /// <exception cref="ArgumentException">A handle is closed or not valid, or a name is longer than 4096 bytes.</exception>
    public IReadOnlyDictionary<string, SafeFileHandle>? Handles
    {
        get;
        init
        {
            if (value is null)
            {
                field = null;
                _files = null;
                return;
            }
            // A handle under two names is one file, which loses data once.
            var files = new Dictionary<SafeFileHandle, HostFile>();
            var named = new Dictionary<string, HostFile>(StringComparer.Ordinal);
            foreach ((string name, SafeFileHandle handle) in value)
            {
                if (System.Text.Encoding.UTF8.GetByteCount(name) > 4096)
                {
                    throw new ArgumentException("file: an export name is longer than 4096 bytes.", nameof(Handles));
                }
                if (!files.TryGetValue(Valid(handle, name), out HostFile? file))
                {
                    files.Add(handle, file = new HostFile(handle));
                }
                named.Add(name, file);
            }
            field = new Dictionary<string, SafeFileHandle>(value, StringComparer.Ordinal);
            _files = named;
        }
    }

    private bool HasHandles => _file is not null || _files is not null;

    private static SafeFileHandle Valid(SafeFileHandle? handle, string name)
        => handle is { IsInvalid: false, IsClosed: false }
            ? handle
            : throw new ArgumentException($"file: the handle of the export '{name}' is closed or not valid.");

    private void CheckHandles()
    {
        _file?.Open(readOnly: true, FileOptions.None).Dispose();
        foreach ((string name, HostFile file) in _files ?? [])
        {
            try
            {
                file.Open(readOnly: true, FileOptions.None).Dispose();
            }
            catch (NbdException e)
            {
                throw new NbdException(e.Error, $"file: the export '{name}': {e.Message}", e);
            }
        }
    }

    private HostFile FileOf(string exportName)
        => _file ?? _files!.GetValueOrDefault(exportName)
            ?? throw new NbdException(NbdError.InvalidArgument, "no such export");
}
