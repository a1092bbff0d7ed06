using System.Text;
using NbdKit.Buffers;

namespace NbdKit.Plugins;

// The exports of a directory. A client's name must be that of an entry, letter by letter: it is never a path.
public sealed partial class FilePlugin
{
    private const string WindowsDevices = "CON PRN AUX NUL CLOCK$ CONIN$ CONOUT$";
    private const string Forbidden = "/\\\0";
    private const string ForbiddenOnWindows = "/\\\0:*?\"<>|";

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (_files is not null)
        {
            foreach (string name in _files.Keys.Order(StringComparer.Ordinal).Take(ExportList.MaximumCount))
            {
                exports.Add(name);
            }
            return;
        }
        if (Directory is null)
        {
            exports.AddDefault();
            return;
        }
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        foreach (string name in SortedNames(Directory))
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (exports.Count == ExportList.MaximumCount)
            {
                break;
            }
            if (IsPlainName(name, OperatingSystem.IsWindows())
                && SparseFile.IsServable(System.IO.Path.Join(Directory, name), FollowLinks))
            {
                exports.Add(name);
            }
        }
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => new(Directory is null && _files?.ContainsKey("") != false ? "" : null);

    /// <summary>Whether a name is one segment of a path and nothing but the name of a file.</summary>
    internal static bool IsPlainName(string name, bool windows)
    {
        if (name is "" or "." or ".." || name.AsSpan().ContainsAny(windows ? ForbiddenOnWindows : Forbidden))
        {
            return false;
        }
        if (!windows)
        {
            return true;
        }
        // Windows drops dots and spaces at the end, and takes a device name for the device whatever its extension is.
        return name[^1] is not ('.' or ' ') && !name.Any(c => c < ' ') && !IsWindowsDevice(name);
    }

    private static bool IsWindowsDevice(string name)
    {
        int dot = name.IndexOf('.', StringComparison.Ordinal);
        string stem = (dot < 0 ? name : name[..dot]).TrimEnd(' ').ToUpperInvariant();
        return WindowsDevices.Split(' ').Contains(stem)
            || (stem.Length == 4
                && (stem.StartsWith("COM", StringComparison.Ordinal) || stem.StartsWith("LPT", StringComparison.Ordinal))
                && stem[3] is (>= '0' and <= '9') or '\u00b9' or '\u00b2' or '\u00b3');
    }

    private string PathOf(string exportName)
    {
        if (!IsPlainName(exportName, OperatingSystem.IsWindows()))
        {
            throw new NbdException(NbdError.InvalidArgument, "the export name is not the name of a file");
        }
        // Elsewhere file systems take several names for one file: other case, short names, other forms of one letter.
        if (!OperatingSystem.IsLinux() && !SortedNames(Directory!).Contains(exportName, StringComparer.Ordinal))
        {
            throw new NbdException(NbdError.InvalidArgument, "no such export");
        }
        return System.IO.Path.Join(Directory, exportName);
    }

    /// <summary>The names in a directory that are valid text, in order.</summary>
    internal static List<string> SortedNames(string directory)
    {
        var names = new List<string>();
        try
        {
            foreach (string path in System.IO.Directory.EnumerateFileSystemEntries(directory))
            {
                string name = System.IO.Path.GetFileName(path);
                // Bytes that are not UTF-8 become U+FFFD: such a file has no name that a client could ask for.
                if (!name.Contains((char)Rune.ReplacementChar.Value, StringComparison.Ordinal))
                {
                    names.Add(name);
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new NbdException(NbdError.IoError, "cannot list the directory", e);
        }
        names.Sort(StringComparer.Ordinal);
        return names;
    }
}
