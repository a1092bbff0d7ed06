namespace NbdKit.Tool;

/// <summary>What the command is asked to do.</summary>
internal enum CommandMode
{
    Serve,
    Help,
    Version,
    DumpConfig,
    DumpPlugin,
    LongOptions,
    ShortOptions,
}
