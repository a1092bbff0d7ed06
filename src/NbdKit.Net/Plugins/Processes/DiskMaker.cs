using Microsoft.Win32.SafeHandles;

namespace NbdKit.Plugins.Processes;

/// <summary>Makes disks: an empty file with a file system in it, or whatever a command makes.</summary>
/// <param name="plugin">The plugin's name, for messages.</param>
/// <param name="type">The file system, for mkfs.</param>
/// <param name="label">Its label, or null.</param>
/// <param name="command">A shell script to run instead of mkfs, or null.</param>
/// <param name="variables">More variables for the script.</param>
internal sealed class DiskMaker(
    string plugin, string type, string? label, string? command, IReadOnlyDictionary<string, string> variables)
{
    /// <summary>The disks that are made at a time; clients who want more wait.</summary>
    private const int AtATime = 4;

    private readonly SemaphoreSlim _slots = new(AtATime);
    private string? _mkfs;

    /// <summary>Checks the settings, and that the program is there.</summary>
    /// <exception cref="InvalidOperationException">A setting is wrong.</exception>
    /// <exception cref="NbdException">There is no such mkfs.</exception>
    public void GetReady()
    {
        if (!ChildProcess.IsAvailable)
        {
            throw new NbdException(NbdError.IoError, $"{plugin}: programs can be run on Linux only, in 64 bits");
        }
        foreach (string name in variables.Keys)
        {
            if (name.Length == 0 || name.Any(c => !char.IsAsciiLetterOrDigit(c) && c != '_') || char.IsAsciiDigit(name[0])
                || name is "disk" or "size")
            {
                throw new InvalidOperationException($"'{name}' cannot be a variable of the command: it is reserved, or no name.");
            }
        }
        if (command is null)
        {
            if (type.Length == 0 || type.Any(c => !char.IsAsciiLetterOrDigit(c) && c is not ('.' or '_' or '-')))
            {
                throw new InvalidOperationException($"'{type}' is not the name of a file system.");
            }
            if (variables.Keys.FirstOrDefault() is { } unused)
            {
                throw new InvalidOperationException($"The parameter {unused} is of no use without a command.");
            }
            _mkfs = Tool.Find(plugin, "mkfs." + type);
        }
    }

    /// <summary>Makes a disk. What is left of one that fails is the caller's to remove.</summary>
    /// <param name="path">Where it is to be; there is nothing there.</param>
    /// <param name="size">The size that is asked for, in bytes.</param>
    /// <param name="cancellationToken">Kills the program.</param>
    /// <exception cref="NbdException">The program failed.</exception>
    public async Task MakeAsync(string path, long size, CancellationToken cancellationToken)
    {
        ChildCommand child = command is null
            ? new ChildCommand(_mkfs!, [.. Options(), path])
            : new ChildCommand("/bin/sh", ["-c", command, plugin])
            {
                // As variables and not as text: the path ends with what a client may have chosen.
                Environment = ChildCommand.EnvironmentWith(
                [
                    .. variables,
                    .. Known("type", command is null ? null : type),
                    .. Known("label", label),
                    new("disk", path),
                    new("size", Scripts.ScriptText.Number(size)),
                ]),
            };
        await _slots.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (command is null)
            {
                using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite);
                RandomAccess.SetLength(file, size);
            }
            ChildResult result = await ChildRun.RunAsync(
                child, default, ChildOutput.FirstOf(0), Timeout.InfiniteTimeSpan, TimeProvider.System, cancellationToken)
                .ConfigureAwait(false);
            result.Expect($"{plugin}: {(command is null ? child.Name : "the command")} failed", Path.GetDirectoryName(path) + '/');
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Native.FileErrors.FromException(e, $"{plugin}: cannot make a disk");
        }
        finally
        {
            _slots.Release();
        }
    }

    private static KeyValuePair<string, string>[] Known(string name, string? value) => value is null ? [] : [new(name, value)];

    /// <summary>What makes each mkfs take a file, without asking, and with a label.</summary>
    private string[] Options()
    {
        bool isFat = type.EndsWith("fat", StringComparison.Ordinal) || type == "msdos";
        string[] force = type switch
        {
            "ext2" or "ext3" or "ext4" => ["-F"],
            "ntfs" => ["-Q", "-F"],
            "xfs" => ["-f"],
            _ when isFat => ["-I"],
            _ => [],
        };
        return label is null ? force : [.. force, isFat || type is "ntfs" or "exfat" ? "-n" : "-L", label];
    }
}
