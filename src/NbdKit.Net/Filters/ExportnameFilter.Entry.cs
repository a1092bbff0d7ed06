using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace NbdKit.Filters;

// The parameters of nbdkit, some of which read files or run commands.
public sealed partial class ExportnameFilter
{
    private const int LargestDescription = 4096;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "exportname",
        "change which exports are listed, may be opened and are the default",
        [
            new NbdParameter("default-export", "the export that clients get by default (default: that of the layer below)"),
            new NbdParameter(
                "exportname-list",
                "which exports are listed: keep (those below, the default), error, empty, defaultonly or explicit"),
            new NbdParameter(
                "exportname-strict",
                "true: only exports given here may be opened; listed: and those listed below (default false)"),
            new NbdParameter("exportname", "a name for exportname-list=explicit and exportname-strict") { IsRepeatable = true },
            new NbdParameter("exportname-file", "a file of such names, one a line"),
            new NbdParameter(
                "exportdesc", "descriptions: keep (the default), none, fixed:TEXT, or script:COMMAND, which prints that of $name"),
        ],
        Create);

    private static ExportnameFilter Create(NbdParameters parameters)
    {
        IEnumerable<string> names = parameters.Texts("exportname");
        if (parameters.Text("exportname-file") is { } path)
        {
            try
            {
                names = [.. names, .. File.ReadAllLines(path)];
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new ArgumentException($"exportname: exportname-file={path}: {e.Message}", nameof(parameters), e);
            }
        }
        return new ExportnameFilter
        {
            DefaultExport = parameters.Text("default-export"),
            Exports = [.. names],
            ListMode = parameters.OneOf(
                "exportname-list",
                ("keep", ExportnameListMode.Keep),
                ("error", ExportnameListMode.Error),
                ("empty", ExportnameListMode.Empty),
                ("defaultonly", ExportnameListMode.DefaultOnly),
                ("explicit", ExportnameListMode.Explicit)) ?? ExportnameListMode.Keep,
            Strictness = parameters.Text("exportname-strict") == "listed"
                ? ExportnameStrictness.Listed
                : parameters.Boolean("exportname-strict") is true ? ExportnameStrictness.Explicit : ExportnameStrictness.None,
            Describe = Description(parameters.Text("exportdesc") ?? "keep"),
        };
    }

    private static Func<string, string?, CancellationToken, ValueTask<string?>>? Description(string text)
    {
        if (text == "keep")
        {
            return null;
        }
        if (text == "none")
        {
            return (_, _, _) => new((string?)null);
        }
        if (text.StartsWith("fixed:", StringComparison.Ordinal))
        {
            string fixedText = text["fixed:".Length..];
            Protocol.WireString.Check(fixedText, "export description");
            return (_, _, _) => new(fixedText);
        }
        string command = text.StartsWith("script:", StringComparison.Ordinal)
            ? text["script:".Length..]
            : throw new ArgumentException($"exportname: exportdesc={text}: not keep, none, fixed:TEXT or script:COMMAND.", nameof(text));
        return (name, _, cancellationToken) => RunAsync(command, name, cancellationToken);
    }

    /// <summary>What the shell command prints, without line ends at its end; the name never is a part of the command.</summary>
    private static async ValueTask<string?> RunAsync(string command, string name, CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", command])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        start.Environment["name"] = name;
        try
        {
            using Process process = Process.Start(start)!;
            process.StandardInput.Close();
            try
            {
                byte[] output = new byte[LargestDescription + 1];
                int length = await process.StandardOutput.BaseStream
                    .ReadAtLeastAsync(output, output.Length, throwOnEndOfStream: false, cancellationToken).ConfigureAwait(false);
                if (length > LargestDescription)
                {
                    throw new NbdException(
                        NbdError.IoError, $"the command for descriptions printed more than {LargestDescription} bytes");
                }
                await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
                return process.ExitCode == 0
                    ? Encoding.UTF8.GetString(output, 0, length).TrimEnd('\r', '\n')
                    : throw new NbdException(
                        NbdError.IoError, $"the command for descriptions failed with status {process.ExitCode}");
            }
            finally
            {
                if (!process.HasExited)
                {
                    process.Kill(entireProcessTree: true);
                }
            }
        }
        catch (Win32Exception e)
        {
            throw new NbdException(NbdError.IoError, $"/bin/sh: {e.Message}");
        }
    }
}
