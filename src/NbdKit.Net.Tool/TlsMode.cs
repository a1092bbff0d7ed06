namespace NbdKit.Tool;

/// <summary>The words of --tls; the numbers are those of the variable $tls.</summary>
internal enum TlsMode
{
    Off = 0,
    On = 1,
    Require = 2,
}
