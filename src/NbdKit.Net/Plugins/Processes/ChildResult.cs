namespace NbdKit.Plugins.Processes;

/// <summary>How a program ended.</summary>
/// <param name="Status">Its exit code, or the negative number of the signal that ended it.</param>
/// <param name="Errors">What it said on standard error.</param>
internal readonly record struct ChildResult(int Status, ChildOutput Errors)
{
    /// <summary>Throws unless it succeeded.</summary>
    /// <param name="what">What it was run for, for the message.</param>
    /// <param name="hidden">A path that clients are not to see in it.</param>
    /// <exception cref="NbdException">It did not; the message has the first line that it said about it.</exception>
    public void Expect(string what, string? hidden = null)
    {
        if (Status != 0)
        {
            string said = Errors.FirstLine();
            said = hidden is null ? said : said.Replace(hidden, "", StringComparison.Ordinal);
            throw new NbdException(NbdError.IoError, $"{what}: {Ending()}{(said.Length > 0 ? ": " + said : "")}");
        }
    }

    /// <summary>How it ended, in words.</summary>
    public string Ending() => Status >= 0 ? $"exit code {Status}" : Status == int.MinValue ? "lost" : $"killed by signal {-Status}";
}
